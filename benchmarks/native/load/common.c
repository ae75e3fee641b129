/* The time, what is being done and what went wrong with it, and histograms. */
#include "load.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum phase phase = IDLE;

int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * SECOND + t.tv_nsec;
}

double cpu(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void print_formatted(const char *name, const char *format, va_list values) {
    char text[400], *c;
    vsnprintf(text, sizeof text, format, values);
    for (c = text; *c; c++)
        if (*c == '"' || *c == '\\' || (unsigned char)*c < ' ') *c = '\''; /* it goes into a JSON string */
    printf("\"%s\": \"%s\"", name, text);
}

void print_text(const char *name, const char *format, ...) {
    va_list values;
    va_start(values, format);
    print_formatted(name, format, values);
    va_end(values);
}

void fail(const char *format, ...) {
    va_list values;
    if (phase == FAILED) return; /* the first is the cause */
    printf("{");
    va_start(values, format);
    print_formatted("error", format, values);
    va_end(values);
    printf("}\n");
    fflush(stdout);
    phase = FAILED;
}

void note(struct histogram *h, int64_t value) {
    if (value < 1) value = 1;
    if (value > h->max) h->max = value;
    int power = 63 - __builtin_clzll(value);
    h->counts[power < 6 ? value : (power - 5) * SUB + ((value >> (power - 6)) & (SUB - 1))]++;
}

static int64_t upper_bound(int bucket) {
    int power = bucket / SUB + 5;
    return bucket < SUB ? bucket : (int64_t)(bucket % SUB + SUB + 1) << (power - 6);
}

void print_histogram(const char *name, const struct histogram *h) {
    const char *separator = "";
    printf("\"%s\": {\"max\": %" PRId64 ", \"delays\": [", name, h->max);
    for (int i = 0; i < BUCKETS; i++)
        if (h->counts[i]) {
            printf("%s[%" PRId64 ", %" PRId64 "]", separator, upper_bound(i), h->counts[i]);
            separator = ", ";
        }
    printf("]}");
}

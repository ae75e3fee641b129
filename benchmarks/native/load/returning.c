/* Connections that end while that is to be expected, and clients that come back as the official one does.
 *
 * In a storm every session is lost at once, as its server ends, and comes back to the next one. While sessions are cut, each
 * ends its connection itself at times of its own, stays away for a while and asks for what it missed.
 */
#include "load.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* socket.io-client's defaults: reconnectionDelay, reconnectionDelayMax, randomizationFactor and timeout. */
static const double DELAY = 1.0, LONGEST_DELAY = 5.0, VARIATION = 0.5, TIMEOUT = 20.0;
enum { EVERY_NS = 5000000 }; /* how often it is looked whose time has come */

bool cutting;
int64_t replayed;
static int64_t looked, first_lost, lost, refused, timed_out, refusals, cut_every, cut_away, cuts;
static struct histogram back;
static char first_refusal[240];
static uint64_t chance = 88172645463325252ULL;

static double random_share(void) { /* xorshift64: the same every time */
    chance ^= chance << 13, chance ^= chance >> 7, chance ^= chance << 17;
    return (chance >> 11) / 9007199254740992.0;
}

/* socket.io-client's Backoff.duration(). */
static double delay_before(int attempt) {
    double delay = attempt < 16 ? DELAY * (1 << attempt) : LONGEST_DELAY;
    delay *= 1 + VARIATION * (2 * random_share() - 1);
    return delay < LONGEST_DELAY ? delay : LONGEST_DELAY;
}

bool may_come_back(void) { return phase == RETURNING || cutting; }

static void forget_connection(struct member *m) {
    if (m->fd >= 0) close(m->fd);
    m->fd = -1;
    free(m->rest);
    m->rest = NULL;
    m->rest_size = 0;
    if (m->state == JOINED) joined--;
    m->state = AWAY;
}

/* A session has no connection any more, or did not get one, and comes back where that is to be expected. `network` is false
 * where the server said that it does not want it. */
void lose(struct member *m, bool network, const char *why) {
    if (phase != RETURNING) {
        fail("session %zu: %s", m - members, why);
        forget_connection(m);
        return;
    }
    int64_t time = now();
    if (m->state == JOINED) {
        if (!lost++) first_lost = time;
        m->lost = time;
        m->attempts = 0;
    } else if (network)
        refused++;
    else if (!refusals++)
        snprintf(first_refusal, sizeof first_refusal, "session %zu: %s", (size_t)(m - members), why);
    forget_connection(m);
    m->due = time + (int64_t)(delay_before(m->attempts++) * SECOND);
    last_progress = time;
}

void begin_storm(void) {
    first_lost = lost = refused = timed_out = refusals = 0;
    memset(&back, 0, sizeof back);
    for (size_t i = 0; i < count; i++) members[i].next = members[i].target = 0; /* the next server counts from 0 */
}

void begin_cutting(int64_t every, int64_t away) {
    cutting = true;
    cut_every = every, cut_away = away;
    cuts = replayed = 0;
    memset(&back, 0, sizeof back);
    for (size_t i = 0; i < count; i++) members[i].due = now() + (int64_t)(random_share() * every);
}

static void cut(struct member *m, int64_t time) {
    forget_connection(m);
    m->lost = time;
    m->due = time + cut_away;
    cuts++;
}

void look_after_the_lost(void (*connect_again)(struct member *m)) {
    int64_t time = now();
    if (!may_come_back() || time - looked < EVERY_NS) return;
    looked = time;
    for (size_t i = 0; i < count && phase != FAILED; i++) {
        struct member *m = &members[i];
        if (m->state == AWAY && time >= m->due)
            connect_again(m);
        else if (cutting && m->state == JOINED && time >= m->due && m->place && m->next < m->target)
            cut(m, time);
        else if (!cutting && m->state != JOINED && m->state != AWAY && time - m->since > TIMEOUT * SECOND) {
            timed_out++;
            lose(m, true, "timed out");
        }
    }
}

void has_come_back(struct member *m, int64_t received) {
    if (!m->lost) return;
    note(&back, received - (cutting ? m->since : m->lost));
    m->due = received + cut_every;
}

/* The last of several texts between quotes that begins with `before`. */
static void remember(char **kept, const char *begin, const char *end) {
    free(*kept);
    *kept = strndup(begin, end - begin);
}

/* Where an update stands: our servers say it in the data, and Node's, for whom there is a pid, behind it. */
void remember_place(struct member *m, const char *text, const char *end) {
    static const char name[] = "\"event_id\":\"";
    const char *begin, *close;
    if (m->pid) {
        if (end - text < 4 || end[-2] != '"') return;
        begin = memrchr(text, '"', end - 2 - text);
        if (begin) remember(&m->place, begin + 1, end - 2);
        return;
    }
    begin = memmem(text, end - text, name, sizeof name - 1);
    if (!begin) return;
    begin += sizeof name - 1;
    close = memchr(begin, '"', end - begin);
    if (close) remember(&m->place, begin, close);
}

void remember_identity(struct member *m, const char *text, size_t size) {
    static const char name[] = "\"pid\":\"";
    const char *begin = memmem(text, size, name, sizeof name - 1), *close;
    if (!begin) return;
    begin += sizeof name - 1;
    close = memchr(begin, '"', text + size - begin);
    if (close) remember(&m->pid, begin, close);
}

bool all_came_back(void) { return lost == (int64_t)count && joined == count; }

void print_returning(void) {
    if (cutting)
        printf("\"cuts\": %" PRId64 ", \"replayed\": %" PRId64 ", ", cuts, replayed);
    else {
        printf("\"seconds\": %.6f, \"refused\": %" PRId64 ", \"timed_out\": %" PRId64 ", \"errors\": %" PRId64 ", ",
               (last_progress - first_lost) / 1e9, refused, timed_out, refusals);
        print_text("first_error", "%s", refusals ? first_refusal : "");
        printf(", ");
    }
    print_histogram("back", &back);
}

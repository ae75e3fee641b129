/* Responses, sessions that poll, and connections that post.
 *
 * A session that polls has one connection and asks again as soon as it has its answer: what it has to say is posted, else
 * it gets what there is.
 */
#include "load.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { DIGITS = 20 }; /* of a number in what is posted, with blanks in front */

struct response {
    int status;
    const char *body;
    size_t body_size;
};

static const char *header(const char *data, const char *end, const char *name) {
    size_t size = strlen(name);
    for (const char *line = data; line && line + size <= end; line = memchr(line, '\n', end - line)) {
        if (*line == '\n') line++;
        if (line + size <= end && !strncasecmp(line, name, size)) return line + size;
    }
    return NULL;
}

/* The size of chunks at the beginning of the data, 0 where they are not complete; what is in them goes into the body. */
static size_t take_chunks(const char *data, size_t size, struct response *response) {
    static char body[BUFFER];
    const char *at = data, *end;
    response->body = body;
    response->body_size = 0;
    for (;;) {
        if (!(end = memmem(at, data + size - at, "\r\n", 2))) return 0;
        size_t chunk = strtoul(at, NULL, 16);
        at = end + 2;
        if (at + chunk + 2 > data + size) return 0;
        memcpy(body + response->body_size, at, chunk); /* it is smaller than all of the data, which fits */
        response->body_size += chunk;
        at += chunk + 2;
        if (!chunk) return at - data;
    }
}

/* The size of a whole response at the beginning of the data, 0 where it is not complete; -1 where nobody knows. */
static ssize_t take_response(const char *data, size_t size, struct response *response) {
    const char *end = memmem(data, size, "\r\n\r\n", 4), *length;
    if (!end) return 0;
    response->status = size > 12 ? atoi(data + 9) : 0;
    response->body = end + 4;
    if ((length = header(data, end, "content-length:"))) {
        response->body_size = strtoul(length, NULL, 10);
        size_t whole = response->body - data + response->body_size;
        return whole <= size ? whole : 0;
    }
    if (!header(data, end, "transfer-encoding: chunked")) return -1;
    size_t begin = end + 4 - data, chunks = take_chunks(data + begin, size - begin, response);
    return chunks ? begin + chunks : 0;
}

/* Sessions that poll. */

void say_by_poll(struct member *m, const char *text) {
    size_t held = m->out ? strlen(m->out) + 1 : 0, size = strlen(text) + 1;
    m->out = realloc(m->out, held + size);
    if (held) m->out[held - 1] = '\x1e';
    memcpy(m->out + held, text, size);
}

void send_poll(struct member *m) {
    char request[4096];
    const char *post = m->sid ? m->out : NULL;
    int size = snprintf(request, sizeof request,
                        "%s /socket.io/?EIO=4&transport=polling%s%s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nCookie: %s\r\n",
                        post ? "POST" : "GET", m->sid ? "&sid=" : "", m->sid ? m->sid : "", m->port, m->cookie);
    if (post)
        size += snprintf(request + size, sizeof request - size,
                         "Content-Type: text/plain;charset=UTF-8\r\nContent-Length: %zu\r\n\r\n%s", strlen(post), post);
    else
        size += snprintf(request + size, sizeof request - size, "\r\n");
    if (post) {
        free(m->out);
        m->out = NULL;
    }
    if (send(m->fd, request, size, MSG_NOSIGNAL) != size)
        fail("session %zu: cannot send: %s", m - members, strerror(errno));
}

static void remember_sid(struct member *m, const char *text, size_t size) {
    const char *begin = memmem(text, size, "\"sid\":\"", 7), *end;
    if (!begin) return;
    begin += 7;
    end = memchr(begin, '"', text + size - begin);
    if (end) m->sid = strndup(begin, end - begin);
}

size_t take_poll(struct member *m, const char *data, size_t size, int64_t received, take_packet *take) {
    struct response response;
    ssize_t used = take_response(data, size, &response);
    if (!used) return 0;
    if (used < 0 || response.status != 200) {
        fail("session %zu: an answer without a length, or refused: %.*s", m - members, (int)(size < 200 ? size : 200),
             data);
        return 0;
    }
    const char *text = response.body, *end = text + response.body_size;
    if (!m->sid) {
        remember_sid(m, text, response.body_size);
        m->state = JOINING;
    }
    while (text < end && phase != FAILED) {
        const char *next = memchr(text, '\x1e', end - text);
        size_t packet = (next ? next : end) - text;
        take(m, text, packet, received);
        text += packet + 1;
    }
    if (phase != FAILED) send_poll(m);
    return used;
}

/* Connections that post, each its share of the updates in an order of its own: number n of lane l is n + (l << 32). */

struct lane {
    int fd;
    int64_t next, asked;
    char rest[4096];
    size_t rest_size;
};

static struct lane lanes[LANES];
static int lane_count;
static int64_t updates_to_post, posted, accepted;
static struct histogram answers;
static char to_post[1 << 16];
static size_t post_size;
static char *seq_at, *sent_at;

static void write_number(char *at, int64_t value) {
    char digits[DIGITS + 1];
    snprintf(digits, sizeof digits, "%*" PRId64, DIGITS, value);
    memcpy(at, digits, DIGITS);
}

static void post_next(int number) {
    struct lane *lane = &lanes[number];
    if (posted == updates_to_post) return;
    posted++;
    lane->asked = now();
    write_number(seq_at, lane->next++ + ((int64_t)number << 32));
    write_number(sent_at, lane->asked);
    if (send(lane->fd, to_post, post_size, MSG_NOSIGNAL) != (ssize_t)post_size)
        fail("connection %d cannot post: %s", number, strerror(errno));
}

static void open_lane(int number, int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = (1ULL << 32) + number};
    int on = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    lanes[number] = (struct lane){.fd = fd};
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) ||
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) || epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event))
        fail("connection %d: cannot connect: %s", number, strerror(errno));
}

void begin_posting(int connections, int64_t updates, int port, const char *path, const char *key, const char *body) {
    lane_count = connections < LANES ? connections : LANES;
    updates_to_post = updates;
    posted = accepted = 0;
    memset(&answers, 0, sizeof answers);
    post_size = snprintf(to_post, sizeof to_post,
                         "POST %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nX-API-Key: %s\r\n"
                         "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
                         path, port, key, strlen(body), body);
    seq_at = post_size < sizeof to_post ? strstr(to_post, "SSSSSSSSSSSSSSSSSSSS") : NULL;
    sent_at = seq_at ? strstr(to_post, "NNNNNNNNNNNNNNNNNNNN") : NULL;
    if (!sent_at) {
        fail("a body to post without places for its numbers");
        return;
    }
    for (int i = 0; i < lane_count && phase != FAILED; i++) open_lane(i, port);
    for (int i = 0; i < lane_count && phase != FAILED; i++) post_next(i);
}

bool posted_all(void) { return accepted == updates_to_post; }

void take_answer(int number, uint32_t events) {
    struct lane *lane = &lanes[number];
    struct response response;
    ssize_t got = recv(lane->fd, lane->rest + lane->rest_size, sizeof lane->rest - lane->rest_size, MSG_DONTWAIT), used;
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) {
        fail("connection %d: the server hung up", number);
        return;
    }
    (void)events;
    lane->rest_size += got;
    used = take_response(lane->rest, lane->rest_size, &response);
    if (!used) return;
    if (used < 0 || response.status != 202) {
        fail("connection %d: the server answered %.*s", number, (int)(lane->rest_size < 300 ? lane->rest_size : 300),
             lane->rest);
        return;
    }
    lane->rest_size = 0; /* there is no answer to what was not asked yet */
    last_progress = now();
    note(&answers, last_progress - lane->asked);
    accepted++;
    post_next(number);
}

void end_posting(void) {
    for (int i = 0; i < lane_count; i++) close(lanes[i].fd);
    lane_count = 0;
}

void print_posting(void) {
    printf("\"posted\": %" PRId64 ", ", accepted);
    print_histogram("answer", &answers);
}

/* The load generator: many Socket.IO sessions in one thread, each of which has to get every update once and in order.
 *
 *     load PORT           on 127.0.0.1
 *
 * Commands come on standard input, one a line, and each but the first five is answered with one line of JSON:
 *
 *     awake                            never sleep while measuring: there is a core that nobody else needs
 *     port PORT                        who is named from here on connects to this port of another server
 *     receipts DESCRIPTOR              before any member: write a byte there, an open pipe, for every update that
 *                                      everybody in its room has got
 *     member ROOM PROJECT COOKIE       there is a session that will join PROJECT; ROOM is its number, from 0
 *     probe PROJECT COOKIE             one session more, no member of a measured room, which asks while others listen
 *     connect INFLIGHT                 connect and join those who have not joined, so many at a time
 *         {"joined": 5000, "seconds": 1.9, "cpu": 0.4}
 *     measure UPDATES PATIENCE PING JOIN
 *         count UPDATES more in every room; give up when nothing has come for PATIENCE seconds. The probe sends a
 *         WebSocket ping every PING milliseconds and a join_project every JOIN, 0 for none. "ready" is said before.
 *         {"ready": true}
 *         {"deliveries": 250000, "seconds": 1.0, "cpu": 0.6,
 *          "delivery": {"max": 30100, "delays": [[29100, 17], ...]}, "ping": {...}, "join": {...}}
 *
 * Seconds are from the first update's publication, as its publisher noted, to the last receipt. Delays, of deliveries
 * since their publication and of the probe's answers, are histograms: pairs of an upper bound in nanoseconds and a count.
 * CPU seconds are without those in which there was nothing to do.
 * Whatever goes wrong, and be it one update lost, doubled or out of order, is answered with {"error": "..."} for good.
 *
 * Between an update's arrival and the next one's stand one recv, one look at the clock and a search for two numbers at
 * the place where they were the last time: the generator has to be quicker than what it measures.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 64, BUFFER = 1 << 18, LINGER_NS = 20000000, CONNECT_PATIENCE_S = 60 };
enum { UNANSWERED = 4096 }; /* questions at most */
enum { APART = 128 }; /* updates that a room's quickest member may be ahead of its slowest while receipts are of use */
enum { SUB = 64, BUCKETS = 64 * SUB }; /* of a histogram: 64 to each power of two, so within 1.6 % */
#define SECOND 1000000000LL

enum state { NEW, CONNECTING, UPGRADING, JOINING, JOINED };
enum phase { IDLE, CONNECTING_ALL, MEASURING, LINGERING, FAILED };

struct member {
    int fd;
    int port;
    int room;
    enum state state;
    int64_t next;     /* the number of the update that is due */
    int64_t target;   /* it has got them all when the next one has this number */
    char *rest;       /* the beginning of a frame whose end has not come yet */
    size_t rest_size;
    char *project, *cookie;
};

/* Who has got what, where somebody wants to know: update number n is counted at n % APART. */
struct room {
    int members, got[APART];
};

struct histogram {
    int64_t counts[BUCKETS], max;
};

/* One of the probe's two questions, asked at fixed times whether or not the last one has been answered. */
struct question {
    int64_t interval, due;
    int64_t asked[UNANSWERED]; /* when, in the order of the answers; number n is at n % UNANSWERED */
    size_t asked_count, answered_count;
    struct histogram delays;
};

static struct member *members;
static size_t count, room_for, started, joined, joined_before, done, inflight;
static size_t probe; /* its place among the members, never the first; 0 where there is none */
static struct question ping, join;
static struct histogram delays;
static enum phase phase = IDLE;
static int64_t deliveries, first_sent, last_receipt, last_progress, began, patience;
static double cpu_before, idle, idle_since; /* CPU seconds: of looking for something to do in vain, and when that began */
static bool awake;
static struct room *rooms;
static int room_count, receipts = -1;
static int port, poller;
static char buffer[BUFFER];

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * SECOND + t.tv_nsec;
}

static double cpu(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

__attribute__((format(printf, 1, 2))) static void fail(const char *format, ...) {
    if (phase == FAILED) return; /* the first is the cause */
    char text[400], *c;
    va_list values;
    va_start(values, format);
    vsnprintf(text, sizeof text, format, values);
    va_end(values);
    for (c = text; *c; c++)
        if (*c == '"' || *c == '\\' || (unsigned char)*c < ' ') *c = '\''; /* it goes into a JSON string */
    printf("{\"error\": \"%s\"}\n", text);
    fflush(stdout);
    phase = FAILED;
}

static void note(struct histogram *h, int64_t value) {
    if (value < 1) value = 1;
    if (value > h->max) h->max = value;
    int power = 63 - __builtin_clzll(value);
    h->counts[power < 6 ? value : (power - 5) * SUB + ((value >> (power - 6)) & (SUB - 1))]++;
}

static int64_t upper_bound(int bucket) {
    int power = bucket / SUB + 5;
    return bucket < SUB ? bucket : (int64_t)(bucket % SUB + SUB + 1) << (power - 6);
}

static void print_histogram(const char *name, const struct histogram *h) {
    const char *separator = "";
    printf("\"%s\": {\"max\": %" PRId64 ", \"delays\": [", name, h->max);
    for (int i = 0; i < BUCKETS; i++)
        if (h->counts[i]) {
            printf("%s[%" PRId64 ", %" PRId64 "]", separator, upper_bound(i), h->counts[i]);
            separator = ", ";
        }
    printf("]}");
}

/* What we say. The mask is zero: it is there for proxies, and here are none. */

static void send_all(struct member *m, const char *data, size_t size) {
    if (send(m->fd, data, size, MSG_NOSIGNAL) != (ssize_t)size)
        fail("session %zu: cannot send: %s", m - members, strerror(errno));
}

static void send_frame(struct member *m, int opcode, const char *text) {
    char frame[512];
    size_t size = strlen(text), head = size < 126 ? 6 : 8;
    frame[0] = 0x80 | opcode;
    frame[1] = 0x80 | (size < 126 ? size : 126);
    if (size >= 126) frame[2] = size >> 8, frame[3] = size;
    memset(frame + head - 4, 0, 4);
    memcpy(frame + head, text, size);
    send_all(m, frame, head + size);
}

static void send_join(struct member *m) {
    char text[256];
    snprintf(text, sizeof text, "42[\"join_project\",{\"project_id\":\"%s\"}]", m->project);
    send_frame(m, 1, text);
}

static void send_upgrade(struct member *m) {
    char request[2048];
    int size = snprintf(request, sizeof request,
                        "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n"
                        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nCookie: %s\r\n\r\n",
                        m->port, m->cookie);
    send_all(m, request, size);
    m->state = UPGRADING;
}

static void start(struct member *m) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(m->port)};
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET | EPOLLRDHUP, .data.u64 = m - members + 1};
    int on = 1;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    m->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    m->state = CONNECTING;
    if (m->fd < 0 || setsockopt(m->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) ||
        (connect(m->fd, (struct sockaddr *)&address, sizeof address) && errno != EINPROGRESS) ||
        epoll_ctl(poller, EPOLL_CTL_ADD, m->fd, &event))
        fail("session %zu: cannot connect: %s", m - members, strerror(errno));
}

static void start_some(void) {
    while (phase == CONNECTING_ALL && started < count && started - joined < inflight) start(&members[started++]);
}

/* What we hear. */

static bool number_after(const char **at, const char *end, const char *name, size_t *hint, const char *origin,
                         int64_t *value) {
    size_t size = strlen(name);
    const char *found = origin + *hint;
    if (found < *at || found + size > end || memcmp(found, name, size)) {
        found = memmem(*at, end - *at, name, size);
        if (!found) return false;
        *hint = found - origin;
    }
    found += size;
    while (found < end && *found == ' ') found++;
    *value = 0;
    while (found < end && *found >= '0' && *found <= '9') *value = *value * 10 + (*found++ - '0');
    *at = found;
    return true;
}

static void count_receipt(int room, int64_t seq) {
    int *got = &rooms[room].got[seq % APART];
    if (++*got < rooms[room].members) return;
    *got = 0;
    if (write(receipts, "", 1) != 1) fail("cannot say what has arrived: %s", strerror(errno));
}

static void take_update(struct member *m, const char *text, const char *end, int64_t received) {
    static size_t seq_hint, sent_hint;
    int64_t seq, sent;
    const char *at = text;
    if (!number_after(&at, end, "\"seq\":", &seq_hint, text, &seq) ||
        !number_after(&at, end, "\"sent\":", &sent_hint, text, &sent)) {
        fail("session %zu: an update without \"seq\" and \"sent\"", m - members);
        return;
    }
    if (seq != m->next || seq >= m->target) {
        const char *what = seq < m->next ? "again" : seq == m->next ? "unasked" : "too early, others are missing";
        fail("session %zu in room %d: update %" PRId64 " came %s; %" PRId64 " was due", m - members, m->room, seq,
             what, m->next);
        return;
    }
    if (!deliveries++ || sent < first_sent) first_sent = sent;
    last_receipt = last_progress = received;
    note(&delays, received - sent);
    if (receipts >= 0) count_receipt(m->room, seq);
    if (++m->next == m->target) done++;
}

/* What was asked before the measurement began does not count. */
static void answered(struct question *q, int64_t received) {
    if (q->answered_count == q->asked_count) return;
    int64_t asked = q->asked[q->answered_count++ % UNANSWERED];
    if (asked >= began) note(&q->delays, received - asked);
}

static void take_joined(struct member *m, int64_t received) {
    if (m->state == JOINED) {
        answered(&join, received);
        return;
    }
    m->state = JOINED;
    joined++;
    last_progress = received;
    start_some();
}

static void take_text(struct member *m, const char *text, size_t size, int64_t received) {
    static const char update[] = "42[\"moderation_update\"", connected[] = "42[\"connected\"",
                      joined_project[] = "42[\"joined_project\"", error[] = "42[\"error\"";
#define BEGINS(word) (size >= sizeof word - 1 && !memcmp(text, word, sizeof word - 1))
    if (BEGINS(update))
        take_update(m, text + sizeof update - 1, text + size, received);
    else if (BEGINS("2") && size == 1)
        send_frame(m, 1, "3");
    else if (BEGINS("0{"))
        send_frame(m, 1, "40");
    else if (BEGINS(connected))
        send_join(m);
    else if (BEGINS(joined_project))
        take_joined(m, received);
    else if (BEGINS(error) || BEGINS("44") || BEGINS("41") || BEGINS("1"))
        fail("session %zu: the server said %.*s", m - members, (int)(size < 200 ? size : 200), text);
#undef BEGINS
}

/* Take one frame from the beginning of the data; how many bytes it had, 0 where it is not complete. */
static size_t take_frame(struct member *m, const char *data, size_t size, int64_t received) {
    const unsigned char *head = (const unsigned char *)data;
    size_t begin = 2, length;
    if (size < 2) return 0;
    length = head[1];
    if (length == 126) {
        if (size < 4) return 0;
        length = head[2] << 8 | head[3], begin = 4;
    } else if (length > 126) {
        fail("session %zu: a masked frame, or one longer than 65,535 bytes", m - members);
        return 0;
    }
    if (size < begin + length) return 0;
    if (head[0] == 0x81)
        take_text(m, data + begin, length, received);
    else if (head[0] == 0x8a)
        answered(&ping, received);
    else if (head[0] == 0x89)
        send_frame(m, 0xa, "");
    else
        fail("session %zu: a frame that begins with 0x%02x", m - members, head[0]);
    return begin + length;
}

static size_t take_response(struct member *m, char *data, size_t size) {
    char *end = memmem(data, size, "\r\n\r\n", 4);
    if (!end) return 0;
    if (size < 12 || memcmp(data + 9, "101", 3)) {
        fail("session %zu: no upgrade but %.*s", m - members, (int)(size < 100 ? size : 100), data);
        return 0;
    }
    m->state = JOINING;
    return end + 4 - data;
}

static void keep(struct member *m, const char *data, size_t size) {
    free(m->rest);
    m->rest = size ? malloc(size) : NULL;
    m->rest_size = size;
    if (size) memcpy(m->rest, data, size);
}

/* Read what has come for one session. Edge-triggered: a buffer that was not filled has taken all there is, unless the
 * end, which is another read, has come with it. */
static void serve(struct member *m, bool ended) {
    ssize_t got;
    do {
        size_t held = m->rest_size, used = 0, taken;
        if (held) memcpy(buffer, m->rest, held);
        got = recv(m->fd, buffer + held, BUFFER - held, 0);
        if (got <= 0) {
            if (got == 0 || errno != EAGAIN) fail("session %zu: the server hung up", m - members);
            return;
        }
        int64_t received = now();
        size_t size = held + got;
        while (phase != FAILED && used < size) {
            taken = m->state == UPGRADING ? take_response(m, buffer + used, size - used)
                                          : take_frame(m, buffer + used, size - used, received);
            if (!taken) break;
            used += taken;
        }
        if (held || used < size) keep(m, buffer + used, size - used);
        got += held;
    } while ((ended || got == BUFFER) && phase != FAILED);
}

static void ready(struct member *m, uint32_t events) {
    if (m->state == CONNECTING) {
        int error = 0;
        socklen_t size = sizeof error;
        getsockopt(m->fd, SOL_SOCKET, SO_ERROR, &error, &size);
        if (error)
            fail("session %zu: cannot connect: %s", m - members, strerror(error));
        else if (events & EPOLLOUT)
            send_upgrade(m);
    }
    if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR) && m->state >= UPGRADING)
        serve(m, events & (EPOLLRDHUP | EPOLLHUP));
}

/* The probe. */

static void ask(struct question *q, void (*send_it)(struct member *), int64_t time) {
    if (!q->interval || time < q->due || q->asked_count - q->answered_count == UNANSWERED) return;
    q->asked[q->asked_count++ % UNANSWERED] = time;
    send_it(&members[probe]);
    q->due += q->interval;
}

static void send_ping(struct member *m) { send_frame(m, 9, ""); }

static void look_after_probe(void) {
    if (!probe || phase != MEASURING) return;
    int64_t time = now();
    ask(&ping, send_ping, time);
    ask(&join, send_join, time);
    /* Not only when its turn comes, behind thousands that are ready too. */
    if (ping.interval || join.interval) serve(&members[probe], false);
}

static void begin_asking(struct question *q, double milliseconds) {
    memset(&q->delays, 0, sizeof q->delays);
    q->interval = milliseconds * 1e6;
    q->due = now();
}

/* Commands and phases. */

static void add_to_room(int room) {
    if (room >= room_count) {
        rooms = realloc(rooms, (room + 1) * sizeof *rooms);
        memset(rooms + room_count, 0, (room + 1 - room_count) * sizeof *rooms);
        room_count = room + 1;
    }
    rooms[room].members++;
}

static void add_member(int room, const char *project, const char *cookie) {
    if (count == room_for) members = realloc(members, (room_for = room_for ? 2 * room_for : 1024) * sizeof *members);
    members[count++] = (struct member){
        .fd = -1, .port = port, .room = room, .project = strdup(project), .cookie = strdup(cookie)};
}

static void begin(enum phase next) {
    phase = next;
    began = last_progress = now();
    cpu_before = cpu();
    idle = idle_since = 0;
}

static void begin_measuring(int64_t updates, double seconds, double ping_ms, double join_ms) {
    deliveries = first_sent = last_receipt = 0;
    done = probe ? 1 : 0;
    memset(&delays, 0, sizeof delays);
    begin_asking(&ping, ping_ms);
    begin_asking(&join, join_ms);
    for (size_t i = 0; i < count; i++)
        if (!probe || i != probe) members[i].target += updates;
    patience = seconds * SECOND;
    begin(MEASURING);
    printf("{\"ready\": true}\n");
}

static void obey(char *line) {
    char project[128], cookie[1500];
    int room;
    long long updates;
    double seconds, ping_ms, join_ms;
    if (sscanf(line, "member %d %127s %1499[^\n]", &room, project, cookie) == 3) {
        add_member(room, project, cookie);
        if (receipts >= 0) add_to_room(room);
    } else if (sscanf(line, "port %d", &port) == 1 || sscanf(line, "receipts %d", &receipts) == 1)
        ; /* there is nothing to say to that */
    else if (!strcmp(line, "awake"))
        awake = true;
    else if (sscanf(line, "probe %127s %1499[^\n]", project, cookie) == 2) {
        add_member(-1, project, cookie);
        probe = count - 1;
    } else if (sscanf(line, "connect %zu", &inflight) == 1) {
        patience = CONNECT_PATIENCE_S * SECOND;
        joined_before = joined;
        begin(CONNECTING_ALL);
        start_some();
    } else if (sscanf(line, "measure %lld %lf %lf %lf", &updates, &seconds, &ping_ms, &join_ms) == 4)
        begin_measuring(updates, seconds, ping_ms, join_ms);
    else
        fail("an unknown command: %s", line);
    fflush(stdout);
}

static void read_commands(void) {
    static char input[1 << 16];
    static size_t held;
    ssize_t got = read(STDIN_FILENO, input + held, sizeof input - held - 1);
    char *line = input, *end;
    if (got <= 0) exit(0);
    held += got;
    input[held] = 0;
    while (phase != FAILED && (end = strchr(line, '\n'))) {
        *end = 0;
        obey(line);
        line = end + 1;
    }
    held -= line - input;
    memmove(input, line, held);
}

static void report_connected(void) {
    printf("{\"joined\": %zu, \"seconds\": %.6f, \"cpu\": %.6f}\n", joined - joined_before,
           (last_progress - began) / 1e9, cpu() - cpu_before);
    fflush(stdout);
    phase = IDLE;
}

static void report_measured(void) {
    printf("{\"deliveries\": %" PRId64 ", \"seconds\": %.6f, \"cpu\": %.6f, ", deliveries,
           (last_receipt - first_sent) / 1e9, cpu() - cpu_before - idle);
    print_histogram("delivery", &delays);
    printf(", ");
    print_histogram("ping", &ping.delays);
    printf(", ");
    print_histogram("join", &join.delays);
    printf("}\n");
    fflush(stdout);
    phase = IDLE;
}

static void move_on(void) {
    if (phase == CONNECTING_ALL && joined == count) report_connected();
    if (phase == MEASURING && done == count) phase = LINGERING;
    if (phase == LINGERING && now() - last_progress > LINGER_NS) report_measured(); /* nothing came twice */
    if ((phase == MEASURING || phase == CONNECTING_ALL) && now() - last_progress > patience)
        fail("%zu of %zu sessions %s, and nothing more comes", phase == MEASURING ? done : joined, count,
             phase == MEASURING ? "have got everything" : "have joined");
}

/* How long to wait for something to do, in milliseconds. A sleeper is woken by whoever sends it something, which would
 * make each send() of the server dearer the less there is to do. */
static int waiting_time(void) {
    if (phase == IDLE || phase == FAILED) return -1;
    return awake && phase == MEASURING ? 0 : 1;
}

static void count_idle_time(bool busy) {
    if (busy == !idle_since) return;
    double time = cpu();
    if (busy) idle += time - idle_since;
    idle_since = busy ? 0 : time;
}

int main(int argc, char **argv) {
    struct epoll_event events[BATCH], input = {.events = EPOLLIN};
    if (argc != 2) return 2;
    port = atoi(argv[1]);
    signal(SIGPIPE, SIG_IGN); /* of whoever wanted to know what has arrived */
    poller = epoll_create1(0);
    if (epoll_ctl(poller, EPOLL_CTL_ADD, STDIN_FILENO, &input)) return 1;
    for (;;) {
        int got = epoll_wait(poller, events, BATCH, waiting_time());
        if (awake) count_idle_time(got > 0);
        for (int i = 0; i < got; i++) {
            if (!events[i].data.u64)
                read_commands();
            else if (phase != FAILED)
                ready(&members[events[i].data.u64 - 1], events[i].events);
        }
        look_after_probe();
        move_on();
    }
}

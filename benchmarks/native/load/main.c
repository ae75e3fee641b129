/* The load generator: many Socket.IO sessions in one thread, each of which has to get every update once and in order.
 *
 *     load PORT           on 127.0.0.1
 *
 * Commands come on standard input, one a line. These have no answer:
 *
 *     awake                            never sleep while measuring: there is a core that nobody else needs
 *     port PORT                        who is named from here on connects to this port of another server
 *     transport polling                who is named from here on polls instead of having a WebSocket
 *     receipts DESCRIPTOR              before any member: write a byte there, an open pipe, for every update that
 *                                      everybody in its room has got
 *     member ROOM PROJECT COOKIE       there is a session that will join PROJECT; ROOM is its number, from 0
 *     probe PROJECT COOKIE             one session more, no member of a measured room, which asks while others listen
 *     askers NUMBER                    the first so many members ask in turn, instead of the probe
 *     expect UPDATES                   after "listen": that is all
 *
 * Each of the others is answered with one line of JSON, and those that take their time with {"ready": true} before:
 *
 *     connect INFLIGHT                 connect and join those who have not joined, so many at a time
 *         {"joined": 5000, "seconds": 1.9, "cpu": 0.4}
 *     measure UPDATES PATIENCE PING JOIN
 *         count UPDATES more in every room; give up when nothing has come for PATIENCE seconds. The probe sends a
 *         WebSocket ping every PING milliseconds and a join_project every JOIN, 0 for none.
 *         {"deliveries": 250000, "seconds": 1.0, "cpu": 0.6,
 *          "delivery": {"max": 30100, "delays": [[29100, 17], ...]}, "ping": {...}, "join": {...}}
 *     jitter UPDATES PATIENCE EVERY AWAY
 *         the same, while every member cuts its connection EVERY seconds for AWAY seconds, comes back and says where it
 *         stopped. "back" is from the beginning of a connection to having caught up.
 *         {..., "cuts": 70, "replayed": 2800, "back": {...}}
 *     storm PATIENCE
 *         every connection is going to end, and the clients come back. "back" is from then on, for each of them.
 *         {"seconds": 4.1, "refused": 93, "timed_out": 0, "errors": 0, "first_error": "", "back": {...}}
 *     listen PATIENCE
 *         count what is published to the probe's room, until as many updates as "expect" says have come.
 *         {"deliveries": 5000, "seconds": 1.0, "cpu": 0.1, "delivery": {...}, "missing": 0}
 *     post CONNECTIONS UPDATES PATIENCE PATH KEY BODY
 *         the same, published over so many connections to the publishing API, on each one at a time. BODY is a JSON object
 *         with twenty letters S in the place of "seq" and twenty N in that of "sent".
 *         {..., "posted": 5000, "answer": {...}}
 *
 * Seconds are from the first update's publication, as its publisher noted, to the last receipt. Delays, of deliveries
 * since their publication and of the probe's answers, are histograms: pairs of an upper bound in nanoseconds and a count.
 * CPU seconds are without those in which there was nothing to do.
 * Whatever goes wrong, and be it one update lost, doubled or out of order, is answered with {"error": "..."} for good.
 *
 * Between an update's arrival and the next one's stand one recv, one look at the clock and a search for two numbers at
 * the place where they were the last time: the generator has to be quicker than what it measures.
 */
#include "load.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { BATCH = 64, LINGER_NS = 20000000, CONNECT_PATIENCE_S = 60 };

/* One of the probe's two questions, asked at fixed times whether or not the last one has been answered. */
struct question {
    int64_t interval, due;
    size_t asked;
};

static size_t room_for, joined_before;
static size_t probe; /* its place among the members, never the first; 0 where there is none */
static size_t askers; /* how many members ask instead */
static struct question ping, join;
static int64_t patience;
static double cpu_before, idle, idle_since; /* CPU seconds: of looking for something to do in vain, and when that began */
static bool awake, posting, polling;
static int port;

/* The probe, or those who ask instead. */

static void ask(struct question *q, bool is_join, int64_t time) {
    if (!q->interval || time < q->due) return;
    struct member *m = &members[askers ? q->asked % askers : probe];
    struct asked **asked = is_join ? &m->joins : &m->pings;
    if (!*asked) *asked = calloc(1, sizeof **asked);
    if ((*asked)->asked - (*asked)->answered == UNANSWERED) return;
    (*asked)->at[(*asked)->asked++ % UNANSWERED] = askers ? q->due : time; /* none is later for one that was late */
    q->asked++;
    if (is_join)
        send_join(m);
    else
        send_ping(m);
    q->due += q->interval;
}

static void look_after_probe(void) {
    if ((!probe && !askers) || phase != MEASURING) return;
    int64_t time = now();
    ask(&ping, false, time);
    ask(&join, true, time);
    /* Not only when its turn comes, behind thousands that are ready too. */
    if (!askers && (ping.interval || join.interval)) serve(&members[probe], false);
}

static void begin_asking(struct question *q, double milliseconds) {
    q->interval = milliseconds * 1e6;
    q->due = began;
}

static void note_unanswered(struct asked *asked, struct histogram *h, int64_t time) {
    if (!asked) return;
    for (size_t i = asked->answered; i < asked->asked; i++)
        if (asked->at[i % UNANSWERED] >= began) note(h, time - asked->at[i % UNANSWERED]);
}

/* Commands and phases. */

static void add_member(int room, const char *project, const char *cookie) {
    if (count == room_for) members = realloc(members, (room_for = room_for ? 2 * room_for : 1024) * sizeof *members);
    members[count++] = (struct member){.fd = -1,
                                       .port = port,
                                       .room = room,
                                       .polls = polling && room >= 0,
                                       .project = strdup(project),
                                       .cookie = strdup(cookie)};
}

static void enter(enum phase next, double seconds) {
    phase = next;
    patience = seconds * SECOND;
    began = last_progress = now();
    cpu_before = cpu();
    idle = idle_since = 0;
    deliveries = first_sent = last_receipt = 0;
    memset(&delays, 0, sizeof delays);
}

static void say_ready(void) {
    printf("{\"ready\": true}\n");
    fflush(stdout);
}

static void begin_measuring(int64_t updates, double seconds, double ping_ms, double join_ms) {
    done = probe ? 1 : 0;
    memset(&pings, 0, sizeof pings);
    memset(&joins, 0, sizeof joins);
    for (size_t i = 0; i < count; i++)
        if (!probe || i != probe) members[i].target += updates;
    enter(MEASURING, seconds);
    begin_asking(&ping, ping_ms);
    begin_asking(&join, join_ms);
    say_ready();
}

static void begin_connecting(void) {
    joined_before = joined;
    enter(CONNECTING_ALL, CONNECT_PATIENCE_S);
    start_some();
}

/* Those who have no answer. */
static bool note_fact(char *line) {
    char project[128], cookie[1500];
    int room;
    long long updates;
    if (sscanf(line, "member %d %127s %1499[^\n]", &room, project, cookie) == 3) {
        add_member(room, project, cookie);
        if (receipts >= 0) add_to_room(room);
    } else if (sscanf(line, "probe %127s %1499[^\n]", project, cookie) == 2) {
        add_member(-1, project, cookie);
        probe = count - 1;
    } else if (sscanf(line, "expect %lld", &updates) == 1)
        expect(updates);
    else if (!strcmp(line, "awake"))
        awake = true;
    else if (!strcmp(line, "transport polling"))
        polling = true;
    else
        return sscanf(line, "port %d", &port) == 1 || sscanf(line, "receipts %d", &receipts) == 1 ||
               sscanf(line, "askers %zu", &askers) == 1;
    return true;
}

static void obey(char *line) {
    char path[256], key[128];
    int connections, body = 0;
    long long updates;
    double seconds, one, two;
    if (note_fact(line))
        return;
    else if (sscanf(line, "connect %zu", &inflight) == 1)
        begin_connecting();
    else if (sscanf(line, "measure %lld %lf %lf %lf", &updates, &seconds, &one, &two) == 4)
        begin_measuring(updates, seconds, one, two);
    else if (sscanf(line, "jitter %lld %lf %lf %lf", &updates, &seconds, &one, &two) == 4) {
        begin_cutting(one * SECOND, two * SECOND);
        begin_measuring(updates, seconds, 0, 0);
    } else if (sscanf(line, "storm %lf", &seconds) == 1) {
        enter(RETURNING, seconds);
        begin_storm();
        say_ready();
    } else if (sscanf(line, "listen %lf", &seconds) == 1) {
        enter(LISTENING, seconds);
        begin_listening();
        say_ready();
    } else if (sscanf(line, "post %d %lld %lf %255s %127s %n", &connections, &updates, &seconds, path, key, &body) == 5) {
        enter(LISTENING, seconds);
        begin_listening();
        expect(updates);
        posting = true;
        begin_posting(connections, updates, port, path, key, line + body);
    } else
        fail("an unknown command: %s", line);
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

static void end_report(void) {
    printf("}\n");
    fflush(stdout);
    phase = IDLE;
    cutting = posting = false;
}

static void report_connected(void) {
    printf("{\"joined\": %zu, \"seconds\": %.6f, \"cpu\": %.6f", joined - joined_before,
           (last_progress - began) / 1e9, cpu() - cpu_before);
    end_report();
}

static void print_deliveries(void) {
    printf("{\"deliveries\": %" PRId64 ", \"seconds\": %.6f, \"cpu\": %.6f, ", deliveries,
           (last_receipt - first_sent) / 1e9, cpu() - cpu_before - idle);
    print_histogram("delivery", &delays);
    printf(", ");
}

static void report_measured(void) {
    int64_t time = now();
    for (size_t i = 0; i < askers; i++) {
        note_unanswered(members[i].pings, &pings, time);
        note_unanswered(members[i].joins, &joins, time);
    }
    print_deliveries();
    if (cutting) {
        print_returning();
        printf(", ");
    }
    print_histogram("ping", &pings);
    printf(", ");
    print_histogram("join", &joins);
    end_report();
}

static void report_heard(void) {
    print_deliveries();
    if (posting) {
        print_posting();
        printf(", ");
        end_posting();
    }
    print_heard();
    end_report();
}

static void report_returned(void) {
    printf("{\"cpu\": %.6f, ", cpu() - cpu_before);
    print_returning();
    end_report();
}

static void give_up_in_time(void) {
    if (phase == IDLE || phase == FAILED || phase == LINGERING || now() - last_progress <= patience) return;
    if (phase == LISTENING)
        fail("%" PRId64 " updates have come, and nothing more comes", deliveries);
    else
        fail("%zu of %zu sessions %s, and nothing more comes", phase == MEASURING ? done : joined, count,
             phase == MEASURING ? "have got everything" : "have joined");
}

static void move_on(void) {
    if (phase == CONNECTING_ALL && joined == count) report_connected();
    if (phase == MEASURING && done == count && (!cutting || joined == count)) phase = LINGERING;
    if (phase == LINGERING && now() - last_progress > LINGER_NS) report_measured(); /* nothing came twice */
    if (phase == LISTENING && heard_all() && (!posting || posted_all())) report_heard();
    if (phase == RETURNING && all_came_back()) report_returned();
    give_up_in_time();
}

/* How long to wait for something to do, in milliseconds. A sleeper is woken by whoever sends it something, which would
 * make each send() of the server dearer the less there is to do. */
static int waiting_time(void) {
    if (phase == IDLE || phase == FAILED) return -1;
    return awake && (phase == MEASURING || phase == LISTENING) ? 0 : 1;
}

static void count_idle_time(bool busy) {
    if (busy == !idle_since) return;
    double time = cpu();
    if (busy) idle += time - idle_since;
    idle_since = busy ? 0 : time;
}

static void serve_event(const struct epoll_event *event) {
    if (!event->data.u64)
        read_commands();
    else if (event->data.u64 >> 32) {
        if (phase != FAILED) take_answer(event->data.u64 & 0xffffffff, event->events);
    } else if (phase == FAILED)
        close(members[event->data.u64 - 1].fd); /* as a client does whose server has hung up */
    else
        ready(&members[event->data.u64 - 1], event->events);
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
        for (int i = 0; i < got; i++) serve_event(&events[i]);
        look_after_probe();
        look_after_the_lost(start);
        move_on();
    }
}

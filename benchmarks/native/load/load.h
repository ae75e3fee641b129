/* What the parts of the load generator share; main.c says what it is. */
#ifndef LOAD_H
#define LOAD_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { BUFFER = 1 << 20 };
enum { APART = 128 }; /* updates that a room's quickest member may be ahead of its slowest while receipts are of use */
enum { SUB = 64, BUCKETS = 64 * SUB }; /* of a histogram: 64 to each power of two, so within 1.6 % */
enum { LANES = 64 }; /* connections that post, at most */
#define SECOND 1000000000LL

enum state { NEW, CONNECTING, OPENING, JOINING, JOINED, AWAY };
enum phase { IDLE, CONNECTING_ALL, MEASURING, LINGERING, LISTENING, RETURNING, FAILED };

struct histogram {
    int64_t counts[BUCKETS], max;
};

/* What one asks and when, in the order of the answers; number n is at n % UNANSWERED. */
enum { UNANSWERED = 4096 };
struct asked {
    int64_t at[UNANSWERED];
    size_t asked, answered;
};

struct member {
    int fd;
    int port;
    int room;
    enum state state;
    bool polls;       /* it has no WebSocket, it asks for what there is */
    int attempts;     /* to come back, so far */
    int64_t next;     /* the number of the update that is due */
    int64_t target;   /* it has got them all when the next one has this number */
    int64_t due;      /* when it comes back, if it is away, or is cut off, if that is to happen to it; 0 for never */
    int64_t since;    /* when it began to connect */
    int64_t lost;     /* when its connection ended */
    char *rest;       /* the beginning of a frame or response whose end has not come yet */
    size_t rest_size;
    char *project, *cookie;
    char *sid;        /* of a session that polls */
    char *out;        /* what a session that polls has to say, as soon as it has its answer */
    char *pid, *place; /* by which a server knows a client again that was away, and what that one got last */
    struct asked *pings, *joins;
};

/* common.c: the time, what is being done and what went wrong with it, and histograms. */
extern enum phase phase;
int64_t now(void);
double cpu(void);
__attribute__((format(printf, 1, 2))) void fail(const char *format, ...);
__attribute__((format(printf, 2, 3))) void print_text(const char *name, const char *format, ...);
void note(struct histogram *h, int64_t value);
void print_histogram(const char *name, const struct histogram *h);

/* everybody.c: all members, and what they have got. */
extern struct member *members;
extern size_t count, joined, done;
extern int poller, receipts;
extern int64_t began, deliveries, first_sent, last_receipt, last_progress;
extern struct histogram delays, pings, joins;
void add_to_room(int room);
void count_receipt(int room, int64_t seq);

/* session.c: what a session says and hears. */
extern size_t inflight; /* how many may be on their way in at a time */
void start(struct member *m);
void start_some(void);
void ready(struct member *m, uint32_t events);
void serve(struct member *m, bool ended);
void send_ping(struct member *m);
void send_join(struct member *m);

/* http.c: responses, sessions that poll, and connections that post. */
typedef void take_packet(struct member *m, const char *text, size_t size, int64_t received);
size_t take_poll(struct member *m, const char *data, size_t size, int64_t received, take_packet *take);
void send_poll(struct member *m);
void say_by_poll(struct member *m, const char *text);
void begin_posting(int connections, int64_t updates, int port, const char *path, const char *key, const char *body);
bool posted_all(void);
void take_answer(int lane, uint32_t events);
void end_posting(void);
void print_posting(void);

/* returning.c: connections that end while that is to be expected, and clients that come back. */
extern bool cutting;
extern int64_t replayed;
bool may_come_back(void);
void lose(struct member *m, bool refused, const char *why);
void begin_storm(void);
void begin_cutting(int64_t every, int64_t away);
void look_after_the_lost(void (*connect_again)(struct member *m));
void has_come_back(struct member *m, int64_t received);
void remember_place(struct member *m, const char *text, const char *end);
void remember_identity(struct member *m, const char *text, size_t size);
bool all_came_back(void);
void print_returning(void);

/* listening.c: updates that somebody else publishes to the probe's room, in several orders at once. */
void begin_listening(void);
void hear_published(struct member *m, int64_t seq, int64_t sent, int64_t received);
void expect(int64_t updates);
bool heard_all(void);
void print_heard(void);

#endif

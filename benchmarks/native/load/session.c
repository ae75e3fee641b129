/* What a session says and hears over its WebSocket. */
#include "load.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

size_t inflight;
static size_t started;
static char buffer[BUFFER];

/* What we say. The mask is zero: it is there for proxies, and here are none. */

static void send_all(struct member *m, const char *data, size_t size) {
    if (send(m->fd, data, size, MSG_NOSIGNAL) != (ssize_t)size && !may_come_back()) /* else its end is heard of next */
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

static void say(struct member *m, const char *text) {
    if (m->polls)
        say_by_poll(m, text);
    else
        send_frame(m, 1, text);
}

void send_ping(struct member *m) { send_frame(m, 9, ""); }

void send_join(struct member *m) {
    char text[300];
    if (m->place && !m->pid)
        snprintf(text, sizeof text, "42[\"join_project\",{\"project_id\":\"%s\",\"last_event_id\":\"%s\"}]", m->project,
                 m->place);
    else
        snprintf(text, sizeof text, "42[\"join_project\",{\"project_id\":\"%s\"}]", m->project);
    say(m, text);
}

static void send_connect(struct member *m) {
    char text[300] = "40";
    if (m->pid && m->place) snprintf(text, sizeof text, "40{\"pid\":\"%s\",\"offset\":\"%s\"}", m->pid, m->place);
    say(m, text);
}

static void send_upgrade(struct member *m) {
    char request[2048];
    int size = snprintf(request, sizeof request,
                        "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n"
                        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nCookie: %s\r\n\r\n",
                        m->port, m->cookie);
    send_all(m, request, size);
}

void start(struct member *m) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(m->port)};
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET | EPOLLRDHUP, .data.u64 = m - members + 1};
    int on = 1;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    m->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    m->state = CONNECTING;
    m->since = now();
    if (m->fd < 0 || setsockopt(m->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) ||
        (connect(m->fd, (struct sockaddr *)&address, sizeof address) && errno != EINPROGRESS) ||
        epoll_ctl(poller, EPOLL_CTL_ADD, m->fd, &event))
        lose(m, true, strerror(errno));
}

void start_some(void) {
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

static void take_update(struct member *m, const char *text, const char *end, int64_t received) {
    static size_t seq_hint, sent_hint;
    int64_t seq, sent;
    const char *at = text;
    if (!number_after(&at, end, "\"seq\":", &seq_hint, text, &seq) ||
        !number_after(&at, end, "\"sent\":", &sent_hint, text, &sent)) {
        fail("session %zu: an update without \"seq\" and \"sent\"", m - members);
        return;
    }
    if (phase == LISTENING) {
        hear_published(m, seq, sent, received);
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
    if (cutting) {
        replayed += m->state != JOINED;
        remember_place(m, text, end);
    }
    if (++m->next == m->target) done++;
}

/* What was asked before the measurement began does not count. */
static void note_answer(struct asked *questions, struct histogram *h, int64_t received) {
    if (!questions || questions->answered == questions->asked) return;
    int64_t asked = questions->at[questions->answered++ % UNANSWERED];
    if (asked >= began) note(h, received - asked);
}

static void take_joined(struct member *m, const char *text, size_t size, int64_t received) {
    if (m->state == JOINED) {
        note_answer(m->joins, &joins, received);
        return;
    }
    if (m->place && !m->pid && !memmem(text, size, "\"recovered\":true", 16)) {
        fail("session %zu was away, and the history no longer reached back to where it stopped", m - members);
        return;
    }
    m->state = JOINED;
    joined++;
    last_progress = received;
    if (may_come_back()) has_come_back(m, received);
    start_some();
}

static void take_error(struct member *m, const char *text, size_t size) {
    char said[240];
    snprintf(said, sizeof said, "the server said %.*s", (int)(size < 200 ? size : 200), text);
    lose(m, false, said);
}

static void take_text(struct member *m, const char *text, size_t size, int64_t received) {
    static const char update[] = "42[\"moderation_update\"", connected[] = "42[\"connected\"",
                      joined_project[] = "42[\"joined_project\"", error[] = "42[\"error\"";
#define BEGINS(word) (size >= sizeof word - 1 && !memcmp(text, word, sizeof word - 1))
    if (BEGINS(update))
        take_update(m, text + sizeof update - 1, text + size, received);
    else if (BEGINS("2") && size == 1)
        say(m, "3");
    else if (BEGINS("0{"))
        send_connect(m);
    else if (BEGINS("40"))
        remember_identity(m, text, size);
    else if (BEGINS(connected))
        send_join(m);
    else if (BEGINS(joined_project))
        take_joined(m, text, size, received);
    else if (BEGINS(error) || BEGINS("44") || BEGINS("41") || (BEGINS("1") && size == 1))
        take_error(m, text, size);
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
        note_answer(m->pings, &pings, received);
    else if (head[0] == 0x89)
        send_frame(m, 0xa, "");
    else if (head[0] == 0x88 && may_come_back())
        ; /* the end of the connection follows */
    else
        fail("session %zu: a frame that begins with 0x%02x", m - members, head[0]);
    return begin + length;
}

static size_t take_response(struct member *m, char *data, size_t size) {
    char *end = memmem(data, size, "\r\n\r\n", 4), said[140];
    if (!end) return 0;
    if (size < 12 || memcmp(data + 9, "101", 3)) {
        snprintf(said, sizeof said, "no upgrade but %.*s", (int)(size < 100 ? size : 100), data);
        lose(m, false, said);
        return 0;
    }
    m->state = JOINING;
    return end + 4 - data;
}

static size_t take(struct member *m, char *data, size_t size, int64_t received) {
    if (m->polls) return take_poll(m, data, size, received, take_text);
    return m->state == OPENING ? take_response(m, data, size) : take_frame(m, data, size, received);
}

static void keep(struct member *m, const char *data, size_t size) {
    free(m->rest);
    m->rest = size ? malloc(size) : NULL;
    m->rest_size = size;
    if (size) memcpy(m->rest, data, size);
}

/* Read what has come for one session. Edge-triggered: a buffer that was not filled has taken all there is, unless the
 * end, which is another read, has come with it. */
void serve(struct member *m, bool ended) {
    ssize_t got;
    do {
        size_t held = m->rest_size, used = 0, taken;
        if (held == BUFFER) {
            fail("session %zu: a frame or response of more than %d bytes", m - members, BUFFER);
            return;
        }
        if (held) memcpy(buffer, m->rest, held);
        got = recv(m->fd, buffer + held, BUFFER - held, 0);
        if (got <= 0) {
            if (got == 0 || errno != EAGAIN) lose(m, true, "the server hung up");
            return;
        }
        int64_t received = now();
        size_t size = held + got;
        while (phase != FAILED && used < size) {
            taken = take(m, buffer + used, size - used, received);
            if (!taken) break;
            used += taken;
        }
        if (m->state == AWAY) return;
        if (held || used < size) keep(m, buffer + used, size - used);
        got += held;
    } while ((ended || got == BUFFER) && phase != FAILED);
}

static void has_connected(struct member *m) {
    m->state = OPENING;
    if (m->polls)
        send_poll(m);
    else
        send_upgrade(m);
}

void ready(struct member *m, uint32_t events) {
    if (m->state == CONNECTING) {
        int error = 0;
        socklen_t size = sizeof error;
        getsockopt(m->fd, SOL_SOCKET, SO_ERROR, &error, &size);
        if (error)
            lose(m, true, strerror(error));
        else if (events & EPOLLOUT)
            has_connected(m);
    }
    if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR) && m->state >= OPENING && m->state != AWAY)
        serve(m, events & (EPOLLRDHUP | EPOLLHUP));
}

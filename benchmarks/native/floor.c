/* The floor: what the kernel takes for the same frames to the same sockets when nothing else is done.
 *
 *     floor PORT TEXT PROJECTS     on 127.0.0.1, 0 for any free port
 *
 * A server under test (benchmarks/servers.py) without Socket.IO: it answers what the load generator says during the
 * login with the ready-made texts that it wants to hear, and publishes by patching three numbers into the one
 * ready-made frame of TEXT and calling send() for every member of the room, one after the other. The numbers are
 * "seq" and "sent", right-aligned in the spaces that TEXT leaves for them, and the last twelve digits of "project_id".
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 256, ID_DIGITS = 12 };
#define SECOND 1000000000LL
/* The accept value belongs to the load generator's key, which is always the same: RFC 6455, section 1.3. */
#define UPGRADED                                                                                                     \
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"                              \
    "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"

struct room {
    int *members;
    size_t count, capacity;
    long long published;
};

static struct room *rooms;
static long projects;
static char frame[65536];
static size_t frame_size;
static char *seq_end, *sent_end, *project_end;

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * SECOND + t.tv_nsec;
}

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void send_all(int fd, const char *data, size_t size) {
    while (size) {
        ssize_t sent = send(fd, data, size, MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN) {
            poll(&(struct pollfd){.fd = fd, .events = POLLOUT}, 1, -1);
            continue;
        }
        if (sent < 0) return; /* the client is gone */
        data += sent, size -= sent;
    }
}

static size_t put_head(char *at, size_t size) {
    at[0] = (char)0x81;
    at[1] = size < 126 ? size : 126;
    if (size < 126) return 2;
    at[2] = size >> 8, at[3] = size;
    return 4;
}

static void send_text(int fd, const char *text) {
    char data[512];
    size_t size = strlen(text), head = put_head(data, size);
    memcpy(data + head, text, size);
    send_all(fd, data, head + size);
}

/* The end of the field after a name: of the spaces, or of the quoted text. */
static char *field_end(const char *name, char end) {
    char *found = strstr(frame + 4, name);
    if (!found || !(found = strchr(found + strlen(name), end))) {
        fprintf(stderr, "floor: the text has no field %s\n", name);
        exit(2);
    }
    return found;
}

static void make_frame(const char *text) {
    size_t size = strlen(text), head = put_head(frame, size);
    memcpy(frame + head, text, size);
    frame_size = head + size;
    project_end = field_end("\"project_id\":\"", '"');
    seq_end = field_end("\"seq\":", ',');
    sent_end = field_end("\"sent\":", '}');
}

static void put_number(char *end, int64_t value, int width, char fill) {
    for (; width; width--, value /= 10) *--end = value || fill == '0' ? '0' + value % 10 : fill;
}

static void publish(long number) {
    struct room *room = &rooms[number];
    int64_t seq = room->published++;
    put_number(project_end, number, ID_DIGITS, '0');
    seq_end[-1] = '0';
    if (seq) put_number(seq_end, seq, 6, ' ');
    put_number(sent_end, now(), 19, ' ');
    for (size_t i = 0; i < room->count; i++) send_all(room->members[i], frame, frame_size);
}

static double after(const char *line, const char *name) {
    const char *found = strstr(line, name);
    return found ? strtod(found + strlen(name), NULL) : 0; /* null is 0 too */
}

static void obey(const char *line) {
    long wanted = after(line, "\"rooms\":"), updates = after(line, "\"updates\":"), batch = after(line, "\"batch\":");
    double rate = after(line, "\"rate\":");
    int64_t begin = now();
    for (long i = 0; i < updates; i++) {
        if (rate && i % batch == 0) {
            int64_t due = begin + i / rate * SECOND;
            struct timespec t = {due / SECOND, due % SECOND};
            clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
        }
        publish(i % wanted);
    }
    printf("{\"published\": %ld}\n", updates);
    fflush(stdout);
}

static void read_commands(void) {
    static char input[4096];
    static size_t held;
    ssize_t got = read(STDIN_FILENO, input + held, sizeof input - held - 1);
    char *end;
    if (got <= 0) exit(0);
    held += got;
    input[held] = 0;
    while ((end = strchr(input, '\n'))) {
        *end = 0;
        obey(input);
        held -= end + 1 - input;
        memmove(input, end + 1, held + 1);
    }
}

static void enter(int fd, long number) {
    struct room *room = &rooms[number];
    char text[256];
    if (room->count == room->capacity)
        room->members = realloc(room->members, (room->capacity = 2 * room->capacity + 16) * sizeof(int));
    room->members[room->count++] = fd;
    snprintf(text, sizeof text, "42[\"joined_project\",{\"project_id\":\"%ld\",\"room\":\"%ld\"}]", number, number);
    send_text(fd, text);
}

/* The load generator waits for each answer, so what it says comes alone, and with a mask of zero it can be read. */
static void answer(int fd) {
    char said[4096], *project;
    ssize_t got = recv(fd, said, sizeof said - 1, 0);
    if (got <= 0) {
        close(fd);
        return;
    }
    said[got] = 0;
    if (!memcmp(said, "GET ", 4)) {
        send_all(fd, UPGRADED, strlen(UPGRADED));
        send_text(fd, "0{\"sid\":\"x\",\"upgrades\":[],\"pingInterval\":600000,\"pingTimeout\":20000}");
    } else if (got == 8 && !memcmp(said + 6, "40", 2)) {
        send_text(fd, "40{\"sid\":\"x\"}");
        send_text(fd, "42[\"connected\",{\"message\":\"Connected to AutoModerate\"}]");
    } else if ((project = memmem(said, got, "\"project_id\":\"", 14))) {
        char *end = strchr(project + 14, '"');
        long number = end ? strtol(end - ID_DIGITS, NULL, 10) : -1;
        if (number >= 0 && number < projects) enter(fd, number);
    }
}

static void accept_one(int listener, int poller) {
    int on = 1, fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
    if (fd < 0) return;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &(struct epoll_event){.events = EPOLLIN, .data.fd = fd})) die("epoll_ctl");
}

static int listen_on(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    socklen_t size = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, size) || listen(fd, 4096) ||
        getsockname(fd, (struct sockaddr *)&address, &size))
        die("listen");
    printf("{\"port\": %d}\n", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

int main(int argc, char **argv) {
    struct epoll_event events[BATCH];
    if (argc != 4 || strlen(argv[2]) > sizeof frame - 5) return 2;
    make_frame(argv[2]);
    projects = atol(argv[3]);
    rooms = calloc(projects, sizeof *rooms);
    int poller = epoll_create1(0), listener = listen_on(atoi(argv[1]));
    if (epoll_ctl(poller, EPOLL_CTL_ADD, STDIN_FILENO, &(struct epoll_event){.events = EPOLLIN, .data.fd = STDIN_FILENO}) ||
        epoll_ctl(poller, EPOLL_CTL_ADD, listener, &(struct epoll_event){.events = EPOLLIN, .data.fd = listener}))
        die("epoll_ctl");
    for (;;) {
        int got = epoll_wait(poller, events, BATCH, -1);
        for (int i = 0; i < got; i++) {
            if (events[i].data.fd == STDIN_FILENO)
                read_commands();
            else if (events[i].data.fd == listener)
                accept_one(listener, poller);
            else
                answer(events[i].data.fd);
        }
    }
}

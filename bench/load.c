/* load: the load generator of the bench, and the server it talks to, in one program
 * (the server half is load_server.c; datagrams are in load_datagrams.c).
 *
 *   load PORT VIA SERVER_PORT MODE COUNT SECONDS
 *
 * PORT is the proxy's on 127.0.0.1. VIA says how it is asked for the server: `socks5`, `connect` (HTTP), `forward` (not
 * at all: it has one target, the server at SERVER_PORT), or `direct` (there is no proxy; PORT is ignored). SERVER_PORT 0
 * is one of the kernel's choice. Modes:
 *   connections  COUNT at a time: connect, handshake, a 64-byte echo, close; and the next
 *   messages     COUNT connections, each with one 64-byte message on its way at a time
 *   download     COUNT streams, bytes counted here          } the receiver counts, and copies
 *   upload       COUNT streams, bytes counted by the server } them out of the kernel
 *   datagrams    COUNT UDP associations, 64-byte datagrams one way, those counted that arrive (socks5 and direct)
 *   idle         open COUNT tunnels (one echo each) within SECONDS, say so on a line, hold them until end of input
 *
 * A run forks its own server, so nothing is left over from the run before. The first WARM_UP
 * part of SECONDS does not count: the lines `begin` and `end` on standard output frame the measured window, so that the
 * caller can read the proxy's CPU time at both ends of it. One line of JSON then says what happened.
 * Both sides are one thread each around epoll, level-triggered. Loopback and IPv4 only. Linux only.
 */
#define _GNU_SOURCE
#include "load.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define WARM_UP 0.2
enum {
    LINKS_MAX = 16384,
    REPLY_BYTES_MAX = 512,
    SAMPLES_MAX = 1 << 20,
    OPENING_MAX = 32,     /* idle: tunnels being opened at a time */
    ERRORS_WITHOUT_SUCCESS_MAX = 1000,
};

char chunk[CHUNK_BYTES];
_Atomic uint64_t *operations;

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

enum mode { CONNECTIONS, MESSAGES, DOWNLOAD, UPLOAD, DATAGRAMS, IDLE, MODES };
static const char *const mode_names[MODES] = {"connections", "messages", "download", "upload", "datagrams", "idle"};
enum via { DIRECT, FORWARD, SOCKS5, CONNECT, VIAS };
static const char *const via_names[VIAS] = {"direct", "forward", "socks5", "connect"};

struct link {
    int fd;
    enum { CLOSED, CONNECTING, GREETED, REQUESTED, TALKING, HELD } state;
    size_t got; /* bytes of the present reply or echo in `input` */
    uint64_t started_ns;
    uint64_t serial; /* stands in the message, so that a proxy that mixes up streams is found out */
    uint8_t input[REPLY_BYTES_MAX + 1];
};

static struct link links[LINKS_MAX];
static uint32_t samples_us[SAMPLES_MAX];
static size_t samples;
static uint64_t errors, serials, opened;
static char first_error[200];
static int driver_epoll;
static pid_t server;
static enum mode mode;
static enum via via;
static uint16_t proxy_port, server_port;
static bool sampling;

static void open_link(struct link *l);

/* The link goes, with a reason, and a new one takes its place; the run's deadline bounds this. */
static void fail(struct link *l, const char *why, int code) {
    if (errors++ == 0) snprintf(first_error, sizeof first_error, "%s (%d)", why, code);
    close(l->fd);
    l->state = CLOSED;
    if (errors < ERRORS_WITHOUT_SUCCESS_MAX || atomic_load(operations) > errors) open_link(l);
}

static void open_link(struct link *l) {
    *l = (struct link){.state = CONNECTING, .serial = ++serials, .started_ns = now_ns()};
    l->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (l->fd < 0) die("socket");
    no_delay(l->fd);
    int yes = 1;
    setsockopt(l->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &yes, sizeof yes);
    struct sockaddr_in own = source_address(l->serial);
    struct sockaddr_in far = loopback(1, via == DIRECT ? server_port : proxy_port);
    if (bind(l->fd, (struct sockaddr *)&own, sizeof own) < 0) die("bind");
    if (connect(l->fd, (struct sockaddr *)&far, sizeof far) < 0 && errno != EINPROGRESS) die("connect");
    watch(driver_epoll, EPOLL_CTL_ADD, l->fd, EPOLLOUT, (uint64_t)(l - links));
}

static void say(struct link *l, const void *bytes, size_t count) {
    if (send(l->fd, bytes, count, MSG_NOSIGNAL) != (ssize_t)count) fail(l, "short write", errno);
}

static void send_message(struct link *l) {
    uint8_t message[MESSAGE_BYTES] = {ECHO};
    memcpy(message + 1, &l->serial, sizeof l->serial);
    l->got = 0;
    say(l, message, sizeof message);
}

static void start_talking(struct link *l) {
    l->state = TALKING;
    l->got = 0;
    if (mode == DOWNLOAD) {
        say(l, &(char){SOURCE}, 1);
    } else if (mode == UPLOAD) {
        watch(driver_epoll, EPOLL_CTL_MOD, l->fd, EPOLLOUT, (uint64_t)(l - links));
        say(l, &(char){SINK}, 1);
    } else {
        send_message(l);
    }
}

static void start_handshake(struct link *l) {
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(l->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error) {
        fail(l, "connect failed", error);
        return;
    }
    watch(driver_epoll, EPOLL_CTL_MOD, l->fd, EPOLLIN, (uint64_t)(l - links));
    if (via == DIRECT || via == FORWARD) {
        start_talking(l);
    } else if (via == SOCKS5) {
        l->state = GREETED;
        say(l, "\x05\x01\x00", 3); /* RFC 1928: one method, no authentication */
    } else {
        char request[128];
        int length = snprintf(request, sizeof request, "CONNECT 127.0.0.1:%u HTTP/1.1\r\nHost: 127.0.0.1:%u\r\n\r\n",
                              server_port, server_port);
        l->state = REQUESTED;
        say(l, request, (size_t)length);
    }
}

/* Bytes of the SOCKS5 reply as a whole, 0 while it cannot be said yet (RFC 1928, section 6). */
static size_t socks_reply_bytes(const struct link *l) {
    if (l->got < 5) return 0;
    switch (l->input[3]) {
    case 1: return 10;
    case 3: return 7 + (size_t)l->input[4];
    default: return 22;
    }
}

/* The server says nothing before it is asked, so a reply may be read greedily. */
static void continue_handshake(struct link *l) {
    ssize_t got = recv(l->fd, l->input + l->got, REPLY_BYTES_MAX - l->got, 0);
    if (got <= 0) {
        fail(l, got ? "handshake failed" : "closed during the handshake", got ? errno : 0);
        return;
    }
    l->got += (size_t)got;
    l->input[l->got] = 0;
    if (l->state == GREETED && l->got >= 2) {
        if (l->input[0] != 5 || l->input[1] != 0) {
            fail(l, "no authentication refused", l->input[1]);
            return;
        }
        uint8_t request[10] = {5, 1, 0, 1, 127, 0, 0, 1, server_port >> 8, server_port & 0xff};
        l->state = REQUESTED;
        l->got = 0;
        say(l, request, sizeof request);
    } else if (l->state == REQUESTED && via == SOCKS5 && l->got >= 2 && l->input[1] != 0) {
        fail(l, "SOCKS request refused", l->input[1]);
    } else if (l->state == REQUESTED && via == SOCKS5 && socks_reply_bytes(l) && l->got >= socks_reply_bytes(l)) {
        start_talking(l);
    } else if (l->state == REQUESTED && via == CONNECT && strstr((char *)l->input, "\r\n\r\n")) {
        int status = atoi((char *)l->input + strlen("HTTP/1.x "));
        if (status == 200)
            start_talking(l);
        else
            fail(l, "CONNECT refused", status);
    }
}

static void receive_echo(struct link *l) {
    ssize_t got = recv(l->fd, l->input + l->got, MESSAGE_BYTES - l->got, 0);
    if (got <= 0) {
        fail(l, got ? "echo failed" : "closed before the echo", got ? errno : 0);
        return;
    }
    l->got += (size_t)got;
    if (l->got < MESSAGE_BYTES) return;
    if (l->input[0] != ECHO || memcmp(l->input + 1, &l->serial, sizeof l->serial) != 0) {
        fail(l, "the echo is not what was sent", 0);
        return;
    }
    uint64_t now = now_ns();
    atomic_fetch_add_explicit(operations, 1, memory_order_relaxed);
    if (sampling && samples < SAMPLES_MAX) samples_us[samples++] = (uint32_t)((now - l->started_ns) / 1000);
    if (mode == MESSAGES) {
        l->started_ns = now;
        send_message(l);
    } else if (mode == CONNECTIONS) {
        close(l->fd);
        open_link(l);
    } else {
        l->state = HELD;
        opened++;
    }
}

static void move_bulk(struct link *l) {
    ssize_t moved = mode == DOWNLOAD ? recv(l->fd, chunk, CHUNK_BYTES, 0)
                                     : send(l->fd, chunk, CHUNK_BYTES, MSG_NOSIGNAL);
    if (moved < 0 && errno == EAGAIN) return;
    if (moved <= 0)
        fail(l, "stream ended early", moved ? errno : 0);
    else if (mode == DOWNLOAD)
        atomic_fetch_add_explicit(operations, (uint64_t)moved, memory_order_relaxed);
}

static void advance(struct link *l) {
    switch (l->state) {
    case CONNECTING: start_handshake(l); break;
    case GREETED:
    case REQUESTED: continue_handshake(l); break;
    case TALKING:
        if (mode == DOWNLOAD || mode == UPLOAD)
            move_bulk(l);
        else
            receive_echo(l);
        break;
    case HELD: /* a held tunnel has nothing to say: the proxy closed it */
        opened--;
        fail(l, "an idle tunnel was closed", 0);
        break;
    case CLOSED: break;
    }
}

static void turn(void) {
    struct epoll_event events[EVENTS_MAX];
    int count = epoll_wait(driver_epoll, events, EVENTS_MAX, 20);
    for (int i = 0; i < count; i++) advance(&links[events[i].data.u64]);
}

static int compare(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static uint32_t quantile_us(double part) {
    return samples ? samples_us[(size_t)(part * (double)(samples - 1))] : 0;
}

/* Waited for, so that the port is free for the next run. */
static void end_server(struct rusage *cost) {
    kill(server, SIGKILL);
    wait4(server, NULL, 0, cost);
}

static void hold_idle(size_t count, uint64_t deadline_ns) {
    size_t started = 0;
    while (opened < count && now_ns() < deadline_ns) {
        while (started < count && started - opened < OPENING_MAX) open_link(&links[started++]);
        turn();
    }
    printf("{\"open\": %lu, \"errors\": %lu, \"first_error\": \"%s\"}\n", opened, errors, first_error);
    fflush(stdout);
    while (getchar() != EOF) {}
    end_server(NULL);
}

static double cpu_s(const struct rusage *u) {
    return (double)(u->ru_utime.tv_sec + u->ru_stime.tv_sec) +
           (double)(u->ru_utime.tv_usec + u->ru_stime.tv_usec) / 1e6;
}

static void announce(const char *moment) {
    puts(moment);
    fflush(stdout);
}

static void drive(size_t count, double seconds) {
    uint64_t begin = now_ns(), window = begin + (uint64_t)(seconds * WARM_UP * 1e9);
    uint64_t end = begin + (uint64_t)(seconds * 1e9), before = 0, now;
    if (mode == DATAGRAMS)
        open_associations(count, via == SOCKS5, proxy_port, server_port);
    else
        for (size_t i = 0; i < count; i++) open_link(&links[i]);
    while ((now = now_ns()) < end) {
        if (!sampling && now >= window) {
            sampling = true;
            before = atomic_load(operations);
            window = now;
            announce("begin");
        }
        if (mode == DATAGRAMS)
            send_burst();
        else
            turn();
    }
    uint64_t after = atomic_load(operations);
    announce("end");
    for (size_t i = 0; i < count; i++)
        if (links[i].state != CLOSED) close(links[i].fd);
    struct rusage own, theirs;
    end_server(&theirs);
    getrusage(RUSAGE_SELF, &own);
    qsort(samples_us, samples, sizeof *samples_us, compare);
    printf("{\"operations\": %lu, \"window_operations\": %lu, \"window_s\": %.6f, \"run_s\": %.6f, \"p50_us\": %u, "
           "\"p99_us\": %u, \"driver_cpu_s\": %.6f, \"server_cpu_s\": %.6f, \"errors\": %lu, \"first_error\": \"%s\"}\n",
           after, after - before, (double)(now - window) / 1e9, (double)(now - begin) / 1e9, quantile_us(0.5),
           quantile_us(0.99), cpu_s(&own), cpu_s(&theirs), errors, first_error);
}

static int choice(const char *word, const char *const *names, int count) {
    for (int i = 0; i < count; i++)
        if (strcmp(word, names[i]) == 0) return i;
    fprintf(stderr, "load: unknown word %s\n", word);
    exit(2);
}

int main(int argc, char **argv) {
    if (argc != 7) {
        fprintf(stderr, "usage: load PORT direct|forward|socks5|connect SERVER_PORT connections|messages|download|upload|datagrams|"
                        "idle COUNT SECONDS\n");
        return 2;
    }
    proxy_port = (uint16_t)atoi(argv[1]);
    via = (enum via)choice(argv[2], via_names, VIAS);
    server_port = (uint16_t)atoi(argv[3]);
    mode = (enum mode)choice(argv[4], mode_names, MODES);
    size_t count = (size_t)atol(argv[5]);
    double seconds = atof(argv[6]);
    if (count < 1 || count > LINKS_MAX || seconds <= 0 || seconds > 600) {
        fprintf(stderr, "load: 1 to %d links, up to 600 seconds\n", LINKS_MAX);
        return 2;
    }
    operations = mmap(NULL, sizeof *operations, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (operations == MAP_FAILED) die("mmap");
    for (size_t i = 1; i < CHUNK_BYTES; i++) chunk[i] = (char)(i * 31);
    chunk[0] = SINK;
    if (mode == DATAGRAMS) {
        if (via == CONNECT || via == FORWARD) {
            fprintf(stderr, "load: datagrams go by socks5 or direct\n");
            return 2;
        }
        server = start_sink(&server_port);
    } else {
        int listener = listen_at(&server_port);
        server = fork();
        if (server < 0) die("fork");
        if (server == 0) serve(listener);
        close(listener);
    }
    driver_epoll = epoll_create1(EPOLL_CLOEXEC);
    if (mode == IDLE)
        hold_idle(count, now_ns() + (uint64_t)(seconds * 1e9));
    else
        drive(count, seconds);
    return 0;
}

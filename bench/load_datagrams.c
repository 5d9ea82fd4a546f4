/* The datagram part of the load generator: 64-byte datagrams one way, through SOCKS5 UDP associations or directly.
 *
 * The sink is a process of its own that counts what arrives whole. The driver keeps at most WINDOW datagrams of all its
 * associations on their way, so that nobody is flooded and what is measured is what gets through; what was lost is
 * given up after a while, and counts as nothing.
 */
#define _GNU_SOURCE
#include "load.h"

#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    ASSOCIATIONS_MAX = 256,
    BURST = 32,
    WINDOW = 512,
    HEADER_BYTES = 10, /* RFC 1928, section 7, with an IPv4 address */
    BUFFER_BYTES = 1 << 20,
    YIELDS_UNTIL_LOST = 2000,
};

static int sinks[ASSOCIATIONS_MAX];
static size_t associations, next_association;
static uint8_t datagram[HEADER_BYTES + MESSAGE_BYTES];
static size_t datagram_bytes;
static uint64_t sent, given_up;

static int udp_socket(void) {
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), size = BUFFER_BYTES;
    if (fd < 0) die("socket");
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    return fd;
}

pid_t start_sink(uint16_t *port) {
    int fd = udp_socket();
    struct sockaddr_in address = loopback(1, 0);
    socklen_t size = sizeof address;
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0) die("bind");
    getsockname(fd, (struct sockaddr *)&address, &size);
    *port = ntohs(address.sin_port);
    pid_t pid = fork();
    if (pid < 0) die("fork");
    if (pid > 0) {
        close(fd);
        return pid;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    static uint8_t buffers[BURST][MESSAGE_BYTES + 1];
    struct iovec parts[BURST];
    struct mmsghdr messages[BURST] = {0};
    for (int i = 0; i < BURST; i++) {
        parts[i] = (struct iovec){buffers[i], sizeof buffers[i]};
        messages[i].msg_hdr = (struct msghdr){.msg_iov = &parts[i], .msg_iovlen = 1};
    }
    for (;;) {
        int got = recvmmsg(fd, messages, BURST, MSG_WAITFORONE, NULL), whole = 0;
        for (int i = 0; i < got; i++) whole += messages[i].msg_len == MESSAGE_BYTES && buffers[i][0] == ECHO;
        atomic_fetch_add_explicit(operations, (uint64_t)whole, memory_order_relaxed);
    }
}

static void exchange(int fd, const void *say, size_t size, uint8_t *answer, size_t wanted) {
    if (send(fd, say, size, MSG_NOSIGNAL) != (ssize_t)size) die("handshake");
    if (recv(fd, answer, wanted, MSG_WAITALL) != (ssize_t)wanted) die("handshake");
}

/* The TCP connection that the association lives by stays open until the process ends. */
static struct sockaddr_in associate(const struct sockaddr_in *own, uint16_t proxy_port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in proxy = loopback(1, proxy_port), relay = loopback(1, 0);
    uint8_t answer[10];
    if (fd < 0 || bind(fd, (const struct sockaddr *)own, sizeof *own) < 0) die("bind");
    if (connect(fd, (struct sockaddr *)&proxy, sizeof proxy) < 0) die("connect");
    exchange(fd, "\x05\x01\x00", 3, answer, 2);
    exchange(fd, "\x05\x03\x00\x01\x00\x00\x00\x00\x00\x00", 10, answer, 10);
    if (answer[1] != 0 || answer[3] != 1) {
        fprintf(stderr, "UDP ASSOCIATE refused: %d\n", answer[1]);
        exit(2);
    }
    memcpy(&relay.sin_addr, answer + 4, 4);
    memcpy(&relay.sin_port, answer + 8, 2);
    return relay;
}

void open_associations(size_t count, bool socks, uint16_t proxy_port, uint16_t sink_port) {
    if (count > ASSOCIATIONS_MAX) die("too many associations");
    struct sockaddr_in sink = loopback(1, sink_port);
    if (socks) {
        datagram[3] = 1;
        memcpy(datagram + 4, &sink.sin_addr, 4);
        memcpy(datagram + 8, &sink.sin_port, 2);
        datagram_bytes = HEADER_BYTES;
    }
    datagram[datagram_bytes] = ECHO;
    datagram_bytes += MESSAGE_BYTES;
    for (associations = 0; associations < count; associations++) {
        struct sockaddr_in own = source_address(associations);
        struct sockaddr_in far = socks ? associate(&own, proxy_port) : sink;
        int fd = sinks[associations] = udp_socket();
        if (bind(fd, (struct sockaddr *)&own, sizeof own) < 0) die("bind");
        if (connect(fd, (struct sockaddr *)&far, sizeof far) < 0) die("connect");
    }
}

/* Datagrams on their way, as far as anybody knows; what was given up may arrive all the same. */
static int64_t under_way(void) { return (int64_t)(sent - given_up - atomic_load(operations)); }

void send_burst(void) {
    uint64_t arrived = atomic_load(operations);
    for (int yields = 0; under_way() > WINDOW - BURST; yields++) {
        if (atomic_load(operations) != arrived) {
            arrived = atomic_load(operations);
            yields = 0;
        } else if (yields == YIELDS_UNTIL_LOST) {
            given_up += (uint64_t)under_way();
        }
        sched_yield();
    }
    struct iovec part = {datagram, datagram_bytes};
    struct mmsghdr messages[BURST];
    for (int i = 0; i < BURST; i++) messages[i].msg_hdr = (struct msghdr){.msg_iov = &part, .msg_iovlen = 1};
    int done = sendmmsg(sinks[next_association++ % associations], messages, BURST, 0);
    if (done > 0) sent += (uint64_t)done;
}

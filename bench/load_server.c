/* The server half of the load generator: echo, sink and source on one port, the first byte of a connection chooses.
 *
 * One thread around level-triggered epoll. It is killed when the run is over; it holds nothing worth saving.
 */
#define _GNU_SOURCE
#include "load.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { DESCRIPTORS_MAX = 65536 };

void no_delay(int fd) {
    int yes = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
}

static char service_of[DESCRIPTORS_MAX];

static void serve_close(int fd) {
    service_of[fd] = UNKNOWN;
    close(fd);
}

static void serve_accept(int epoll, int listener) {
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) return;
        if (fd >= DESCRIPTORS_MAX) {
            close(fd);
            continue;
        }
        no_delay(fd);
        watch(epoll, EPOLL_CTL_ADD, fd, EPOLLIN, (uint64_t)fd);
    }
}

static void serve_one(int epoll, int fd, uint32_t events) {
    if (service_of[fd] == SOURCE) {
        /* One chunk a wake-up: level-triggered epoll comes back, and no stream starves another. */
        ssize_t sent = send(fd, chunk, CHUNK_BYTES, MSG_NOSIGNAL);
        if ((sent < 0 && errno != EAGAIN) || (events & (EPOLLERR | EPOLLHUP | EPOLLRDHUP))) serve_close(fd);
        return;
    }
    ssize_t got = recv(fd, chunk, CHUNK_BYTES, 0);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) {
        serve_close(fd);
        return;
    }
    if (service_of[fd] == UNKNOWN) service_of[fd] = chunk[0];
    switch (service_of[fd]) {
    case ECHO: /* at most one message is under way, so a short write means trouble */
        if (send(fd, chunk, (size_t)got, MSG_NOSIGNAL) != got) serve_close(fd);
        break;
    case SINK: atomic_fetch_add_explicit(operations, (uint64_t)got, memory_order_relaxed); break;
    case SOURCE: watch(epoll, EPOLL_CTL_MOD, fd, EPOLLOUT | EPOLLRDHUP, (uint64_t)fd); break;
    default: serve_close(fd);
    }
}

_Noreturn void serve(int listener) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    watch(epoll, EPOLL_CTL_ADD, listener, EPOLLIN, (uint64_t)listener);
    for (;;) {
        struct epoll_event events[EVENTS_MAX];
        int count = epoll_wait(epoll, events, EVENTS_MAX, -1);
        for (int i = 0; i < count; i++) {
            int fd = (int)events[i].data.u64;
            if (fd == listener)
                serve_accept(epoll, listener);
            else
                serve_one(epoll, fd, events[i].events);
        }
    }
}

int listen_at(uint16_t *port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), yes = 1;
    struct sockaddr_in address = loopback(1, *port);
    socklen_t size = sizeof address;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes); /* connections of the run before linger at a fixed port */
    if (bind(fd, (struct sockaddr *)&address, size) < 0 || listen(fd, 4096) < 0) die("listen");
    getsockname(fd, (struct sockaddr *)&address, &size);
    *port = ntohs(address.sin_port);
    return fd;
}

/* What the two halves of the load generator share: the driver (load.c) and the server it talks to (load_server.c). */
#ifndef LOAD_H
#define LOAD_H

#include <arpa/inet.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/types.h>

enum {
    CHUNK_BYTES = 256 * 1024,
    MESSAGE_BYTES = 64,
    EVENTS_MAX = 256,
    SOURCE_ADDRESSES = 16,
};

/* The first byte of a connection tells the server what it is for. */
enum service { UNKNOWN = 0, ECHO = 'e', SINK = 'u', SOURCE = 'd' };

extern char chunk[CHUNK_BYTES];
extern _Atomic uint64_t *operations; /* shared by both processes: bytes in bulk, else echoes come back */

static inline _Noreturn void die(const char *what) {
    perror(what);
    exit(2);
}

static inline void watch(int epoll, int operation, int fd, uint32_t events, uint64_t tag) {
    struct epoll_event event = {.events = events, .data.u64 = tag};
    if (epoll_ctl(epoll, operation, fd, &event) < 0) die("epoll_ctl");
}

static inline struct sockaddr_in loopback(uint32_t last_byte, uint16_t port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(0x7f000000u | last_byte);
    return address;
}

/* Clients come from 127.0.0.2 and up: one address would run out of ports, and a proxy with several workers may keep each
 * client to one of them. */
static inline struct sockaddr_in source_address(uint64_t serial) {
    return loopback(2 + (uint32_t)(serial % SOURCE_ADDRESSES), 0);
}

void no_delay(int fd);

/* A listening socket on 127.0.0.1 at that port; 0 becomes one of the kernel's choice. */
int listen_at(uint16_t *port);

/* Datagrams (load_datagrams.c): the process that counts what arrives; what is opened toward it; and one burst. */
pid_t start_sink(uint16_t *port);
void open_associations(size_t count, bool socks, uint16_t proxy_port, uint16_t sink_port);
void send_burst(void);

/* Serve until killed, or until the process that forked us ends. */
_Noreturn void serve(int listener);

#endif

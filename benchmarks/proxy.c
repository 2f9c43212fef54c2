/* A TCP proxy that delays every byte by a fixed time in each direction, without changing the rate.
 *
 *     delay_proxy LISTEN_PORT TARGET_PORT MICROSECONDS
 *
 * One thread, poll(2); each direction of each connection is a queue of (due time, bytes).
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_PAIRS 256
#define CHUNK 65536

struct chunk { struct chunk *next; long long due; size_t size, sent; char bytes[]; };
struct pipe { int from, to; struct chunk *head, *tail; size_t held; int ended; };
struct pair { int open; struct pipe way[2]; };

static struct pair pairs[MAX_PAIRS];

static long long now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000LL + t.tv_nsec / 1000;
}

static void prepare(int fd) {
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(fd, F_SETFL, O_NONBLOCK);
}

static void shut(struct pair *p) {
    for (int i = 0; i < 2; i++) {
        while (p->way[i].head) { struct chunk *c = p->way[i].head; p->way[i].head = c->next; free(c); }
    }
    close(p->way[0].from);
    close(p->way[0].to);
    memset(p, 0, sizeof *p);
}

static void accept_one(int listener, int target_port) {
    int client = accept(listener, NULL, NULL);
    if (client < 0) return;
    for (int i = 0; i < MAX_PAIRS; i++) {
        if (pairs[i].open) continue;
        struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(target_port)};
        to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        int server = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(server, (struct sockaddr *)&to, sizeof to) < 0) { close(server); break; }
        prepare(client);
        prepare(server);
        pairs[i].open = 1;
        pairs[i].way[0] = (struct pipe){.from = client, .to = server};
        pairs[i].way[1] = (struct pipe){.from = server, .to = client};
        return;
    }
    close(client);
}

static int take(struct pipe *w, long long delay) {
    if (w->held > (64u << 20)) return 0; /* back-pressure: leave it in the kernel */
    struct chunk *c = malloc(sizeof *c + CHUNK);
    ssize_t n = read(w->from, c->bytes, CHUNK);
    if (n <= 0) {
        free(c);
        if (n == 0 || (errno != EAGAIN && errno != EINTR)) w->ended = 1;
        return w->ended;
    }
    c = realloc(c, sizeof *c + n);
    c->next = NULL; c->due = now_us() + delay; c->size = n; c->sent = 0;
    if (w->head) w->tail->next = c; else w->head = c;
    w->tail = c;
    w->held += n;
    return 0;
}

static int give(struct pipe *w) {
    while (w->head && w->head->due <= now_us()) {
        struct chunk *c = w->head;
        ssize_t n = write(w->to, c->bytes + c->sent, c->size - c->sent);
        if (n < 0) return errno != EAGAIN && errno != EINTR;
        c->sent += n;
        if (c->sent < c->size) return 0;
        w->held -= c->size;
        w->head = c->next;
        free(c);
    }
    return w->ended && !w->head;
}

int main(int argc, char **argv) {
    if (argc != 4) { fprintf(stderr, "usage: delay_proxy LISTEN_PORT TARGET_PORT MICROSECONDS\n"); return 2; }
    int target = atoi(argv[2]), one = 1;
    long long delay = atoll(argv[3]);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&at, sizeof at) < 0 || listen(listener, 64) < 0) { perror("listen"); return 1; }
    for (;;) {
        struct pollfd fds[1 + 2 * MAX_PAIRS];
        int owner[1 + 2 * MAX_PAIRS], count = 1;
        long long soonest = -1;
        fds[0] = (struct pollfd){.fd = listener, .events = POLLIN};
        for (int i = 0; i < MAX_PAIRS; i++) {
            if (!pairs[i].open) continue;
            for (int k = 0; k < 2; k++) {
                struct pipe *w = &pairs[i].way[k];
                if (!w->ended) { owner[count] = i * 2 + k; fds[count++] = (struct pollfd){.fd = w->from, .events = POLLIN}; }
                if (w->head && (soonest < 0 || w->head->due < soonest)) soonest = w->head->due;
            }
        }
        struct timespec wait = {0, 0}, *until = NULL;
        if (soonest >= 0) {
            long long left = soonest - now_us();
            if (left < 0) left = 50; /* the other side is slow: do not spin */
            wait.tv_sec = left / 1000000; wait.tv_nsec = (left % 1000000) * 1000; until = &wait;
        }
        ppoll(fds, count, until, NULL);
        if (fds[0].revents) accept_one(listener, target);
        for (int i = 1; i < count; i++)
            if (fds[i].revents && pairs[owner[i] / 2].open) take(&pairs[owner[i] / 2].way[owner[i] % 2], delay);
        for (int i = 0; i < MAX_PAIRS; i++)
            if (pairs[i].open && (give(&pairs[i].way[0]) | give(&pairs[i].way[1]))) shut(&pairs[i]);
    }
}

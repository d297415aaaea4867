/* A load generator: what clients see of single answers and of streams. Prints one JSON object.
 *
 *   load port=P clients=N seconds=S [model=M] [stream=1 events=E interval_us=U] [vanish_ms=V] [think_ms=T] [path=/v1/...]
 *
 * Each client sends one request after the other, answers on a kept connection, streams on whatever the server leaves
 * open. With `vanish_ms` a client breaks off after a random time of up to that, wherever its answer is; with `think_ms`
 * it waits as long before its next request. Times are microseconds; an event's delay counts from the moment the engine
 * wrote it.
 */

#include "http.h"

#define MOST 4000000

typedef struct {
    int fd;
    enum { CONNECTING, THINKING, WAITING, READING, OVER } state;
    long long sent_ns, first_ns, leaves_ns, thinks_ns;
    char head[8192];
    int head_length;
    long long expected, received; /* bytes of the body; expected is -1 for chunked */
    char tail[8];
} Client;

typedef struct {
    float *values;
    long count;
} Series;

static int epoll, port = 0, active;
static long clients = 1, is_stream = 0, events_each = 100, interval_us = 0, vanish_ms = 0, think_ms = 0;
static double seconds = 1;
static const char *model = "mock", *path = "/v1/chat/completions";
static char request[8192];
static int request_length;
static long long stop_ns, answers, errors, vanished, events_seen, reads;
static Series first, total, delays;

static void add(Series *series, long long ns) {
    if (series->count < MOST) series->values[series->count++] = ns / 1e3;
}

static int compare(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static double quantile(Series *series, double q) {
    return series->count ? series->values[(long)(q * (series->count - 1))] : -1;
}

static void open_connection(Client *c) {
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    no_delay(c->fd);
    struct sockaddr_in address = loopback(port);
    if (connect(c->fd, (void *)&address, sizeof address) < 0 && errno != EINPROGRESS) die("connect");
    c->state = CONNECTING;
    watch(epoll, c->fd, EPOLLIN | EPOLLOUT, c, EPOLL_CTL_ADD);
}

static void send_request(Client *c) {
    c->sent_ns = now_ns();
    c->leaves_ns = vanish_ms ? c->sent_ns + rand() % (vanish_ms * 1000) * 1000LL : 0;
    c->first_ns = c->head_length = c->received = c->expected = 0;
    memset(c->tail, 0, sizeof c->tail);
    c->state = WAITING;
    if (send(c->fd, request, request_length, MSG_NOSIGNAL) != request_length) errors++;
}

static void leave(Client *c) {
    close(c->fd);
    c->state = OVER;
    active--;
}

static void again(Client *c, int on_new_connection) {
    if (now_ns() >= stop_ns) return leave(c);
    if (on_new_connection) {
        close(c->fd);
        open_connection(c);
    } else if (think_ms) {
        c->thinks_ns = now_ns() + rand() % (think_ms * 1000) * 1000LL;
        c->state = THINKING;
    } else {
        send_request(c);
    }
}

static void finished(Client *c) {
    answers++;
    add(&total, now_ns() - c->sent_ns);
    again(c, 0);
}

static void note_events(const char *data, size_t length) {
    long long now = now_ns();
    for (const char *end = data + length; (data = memmem(data, end - data, "\"t\":", 4)) && end - data > 20;) {
        data += 4;
        add(&delays, now - atoll(data));
        events_seen++;
    }
}

/* The part of `data` that is body; NULL when there is none yet. */
static const char *after_head(Client *c, const char *data, ssize_t *length) {
    int old = c->head_length, room = sizeof c->head - 1 - old, taken = *length < room ? *length : room;
    memcpy(c->head + old, data, taken);
    c->head_length += taken;
    c->head[c->head_length] = 0;
    char *end = strstr(c->head, "\r\n\r\n");
    if (!end) return NULL;
    *end = 0;
    c->state = READING;
    char *size = strcasestr(c->head, "\r\ncontent-length:");
    c->expected = size ? atoll(size + 17) : -1;
    if (strncmp(c->head + 8, " 200", 4)) {
        if (errors++ < 3) fprintf(stderr, "answer: %.60s\n", c->head);
    }
    int skipped = end + 4 - c->head - old;
    *length -= skipped;
    return data + skipped;
}

static void body(Client *c, const char *data, ssize_t length) {
    if (length <= 0) return;
    if (!c->first_ns) {
        c->first_ns = now_ns();
        add(&first, c->first_ns - c->sent_ns);
    }
    c->received += length;
    if (is_stream) note_events(data, length);
    for (ssize_t i = length > 8 ? length - 8 : 0; i < length; i++) {
        memmove(c->tail, c->tail + 1, 7);
        c->tail[7] = data[i];
    }
    if (c->expected < 0 ? !memcmp(c->tail + 1, "\r\n0\r\n\r\n", 7) : c->received >= c->expected) finished(c);
}

static void readable(Client *c) {
    static char buffer[262144];
    ssize_t length = recv(c->fd, buffer, sizeof buffer, 0);
    if (length < 0 && errno == EAGAIN) return;
    if (length <= 0) {
        /* A kept connection may be closed by the server between two requests, and after a stream. */
        if (c->received || c->head_length) errors++;
        return again(c, 1);
    }
    reads++;
    const char *data = buffer;
    if (c->state == WAITING) data = after_head(c, data, &length);
    if (data && c->state == READING) body(c, data, length);
}

static void handle(Client *c, unsigned events) {
    if (c->state == OVER) return;
    if (c->state != CONNECTING) return readable(c);
    if (events & (EPOLLERR | EPOLLHUP)) {
        errors++;
        return again(c, 1);
    }
    watch(epoll, c->fd, EPOLLIN, c, EPOLL_CTL_MOD);
    send_request(c);
}

static void think(Client *all) {
    long long now = now_ns();
    for (Client *c = all; c < all + clients; c++)
        if (c->state == THINKING && c->thinks_ns <= now) send_request(c);
}

static void vanish(Client *all) {
    long long now = now_ns();
    for (Client *c = all; c < all + clients; c++) {
        if (c->state == OVER || c->state == CONNECTING || !c->leaves_ns || c->leaves_ns > now) continue;
        vanished++;
        c->head_length = c->received = 0;
        again(c, 1);
    }
}

static void read_arguments(int count, char **arguments) {
    for (int i = 1; i < count; i++) {
        char *value = strchr(arguments[i], '=');
        if (!value) continue;
        *value++ = 0;
        const char *name = arguments[i];
        if (!strcmp(name, "port")) port = atoi(value);
        else if (!strcmp(name, "clients")) clients = atol(value);
        else if (!strcmp(name, "seconds")) seconds = atof(value);
        else if (!strcmp(name, "stream")) is_stream = atol(value);
        else if (!strcmp(name, "events")) events_each = atol(value);
        else if (!strcmp(name, "interval_us")) interval_us = atol(value);
        else if (!strcmp(name, "vanish_ms")) vanish_ms = atol(value);
        else if (!strcmp(name, "think_ms")) think_ms = atol(value);
        else if (!strcmp(name, "model")) model = value;
        else if (!strcmp(name, "path")) path = value;
        else {
            fprintf(stderr, "unknown argument: %s\n", name);
            exit(2);
        }
    }
}

/* The headers and the size of what the OpenAI client for Python sends. */
static void write_request(void) {
    char content[601], text[2048];
    for (int i = 0; i < 600; i++) content[i] = "abcdefgh ijklm no"[i % 17];
    content[600] = 0;
    int length = sprintf(text,
        "{\"messages\":[{\"role\":\"user\",\"content\":\"%s\"}],\"temperature\":0.7,\"max_tokens\":200,\"events\":%ld,"
        "\"interval_us\":%ld,\"model\":\"%s\",\"stream\":%s}",
        content, events_each, interval_us, model, is_stream ? "true" : "false");
    request_length = sprintf(request,
        "POST %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUser-Agent: OpenAI/Python 2.8.0\r\nAccept: application/json\r\n"
        "Accept-Encoding: gzip, deflate\r\nContent-Type: application/json\r\nAuthorization: Bearer sk-0123456789abcdef0123456789abcdef\r\n"
        "X-Stainless-Lang: python\r\nX-Stainless-Async: false\r\nContent-Length: %d\r\n\r\n%s",
        path, port, length, text);
}

static void report(double elapsed) {
    Series *all[] = {&first, &total, &delays};
    const char *names[] = {"first", "total", "event"};
    printf("{\"answers\":%lld,\"errors\":%lld,\"unfinished\":%d,\"vanished\":%lld,\"events\":%lld,\"reads\":%lld,\"seconds\":%.3f",
        answers, errors, active, vanished, events_seen, reads, elapsed);
    for (int i = 0; i < 3; i++) {
        qsort(all[i]->values, all[i]->count, sizeof(float), compare);
        printf(",\"%s_p50\":%.1f,\"%s_p99\":%.1f,\"%s_max\":%.1f", names[i], quantile(all[i], .5), names[i],
            quantile(all[i], .99), names[i], quantile(all[i], 1));
    }
    puts("}");
}

int main(int count, char **arguments) {
    read_arguments(count, arguments);
    signal(SIGPIPE, SIG_IGN);
    many_files();
    write_request();
    first.values = malloc(MOST * sizeof(float));
    total.values = malloc(MOST * sizeof(float));
    delays.values = malloc(MOST * sizeof(float));
    Client *all = calloc(clients, sizeof *all);
    epoll = epoll_create1(0);
    int timer = ticking(epoll, 1 * MS, &epoll);
    long long start = now_ns(), over_ns;
    stop_ns = start + (long long)(seconds * 1e9);
    over_ns = stop_ns + (events_each + 5) * interval_us * 1000LL + 10000 * MS;
    active = clients;
    /* Spread over one interval, so that events do not coincide. */
    long long spread_ns = is_stream ? interval_us * 1000LL : 0;
    struct epoll_event events[512];
    for (long started = 0; active > 0 && now_ns() < over_ns;) {
        while (started < clients && now_ns() - start >= spread_ns * started / clients) open_connection(&all[started++]);
        int n = epoll_wait(epoll, events, 512, started < clients ? 0 : -1);
        for (int i = 0; i < n; i++) {
            unsigned long long ticks;
            if (events[i].data.ptr == &epoll) (void)!read(timer, &ticks, sizeof ticks);
            else handle(events[i].data.ptr, events[i].events);
        }
        if (think_ms) think(all);
        if (vanish_ms) vanish(all);
    }
    report((now_ns() - start) / 1e9);
    return 0;
}

/* A llama-server that computes nothing: answers at once, or streams events at a fixed pace.
 *
 *   mock_engine --port PORT [anything else is ignored]
 *   POST, any path   {"stream":true,"events":N,"interval_us":M}   N tokens, as llama-server streams them, then it closes
 *                    anything else                                  one JSON answer
 *   GET /health /props /slots                                       as llama-server answers them when idle
 *   GET /stats                                                      what this process has seen
 *
 * Streams begun together do not stay in step: after its first event each waits for a random share of its interval more.
 * Else who begins many streams slowly would have their events come evenly and one by one, who is fast in a heap.
 * Every event carries "t", the time it was written, in nanoseconds of the clock all processes of a machine share.
 */

#include "http.h"

#define TICK_NS 250000

typedef struct {
    int fd;
    char *in;
    size_t in_length, in_capacity;
    char out[4096];
    int out_length, out_sent;
    int is_streaming, is_blocked, slot;
    int events, sent, wants_usage;
    long long interval_ns, due_ns;
} Connection;

static int epoll;
static Connection **streams;
static int stream_count, stream_capacity;
static long long requests, chunks, broken, accepted, open_now;

static const char HEAD[] = "HTTP/1.1 200 OK\r\nServer: llama.cpp\r\nKeep-Alive: timeout=5, max=100\r\nContent-Type: ";
static const char ANSWER[] =
    "{\"choices\":[{\"finish_reason\":\"stop\",\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\""
    "word word word word word word word word word word word word word word word word word word word word "
    "word word word word word word word word word word word word word word word word word word word word "
    "\"}}],\"created\":1763660000,\"model\":\"mock\",\"object\":\"chat.completion\","
    "\"usage\":{\"completion_tokens\":40,\"prompt_tokens\":42,\"total_tokens\":82},\"id\":\"chatcmpl-00000000000000000000000000000000\","
    "\"timings\":{\"cache_n\":0,\"prompt_n\":42,\"prompt_ms\":51.1,\"predicted_n\":40,\"predicted_ms\":200.5,\"predicted_per_second\":199.9}}";

static void leave_stream(Connection *c) {
    if (!c->is_streaming) return;
    Connection *last = streams[--stream_count];
    streams[c->slot] = last;
    last->slot = c->slot;
    c->is_streaming = 0;
}

static void drop(Connection *c) {
    if (c->is_streaming) broken++;
    leave_stream(c);
    close(c->fd);
    open_now--;
    free(c->in);
    free(c);
}

/* 1: all of `out` is sent; 0: the client does not read; -1: it is gone. */
static int flush(Connection *c) {
    while (c->out_sent < c->out_length) {
        ssize_t n = send(c->fd, c->out + c->out_sent, c->out_length - c->out_sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) {
            if (!c->is_blocked) watch(epoll, c->fd, EPOLLIN | EPOLLOUT, c, EPOLL_CTL_MOD);
            c->is_blocked = 1;
            return 0;
        }
        if (n < 0) return -1;
        c->out_sent += n;
    }
    c->out_length = c->out_sent = 0;
    if (c->is_blocked) watch(epoll, c->fd, EPOLLIN, c, EPOLL_CTL_MOD);
    c->is_blocked = 0;
    return 1;
}

static int whole(Connection *c, const char *body) {
    c->out_length = sprintf(c->out, "%sapplication/json; charset=utf-8\r\nContent-Length: %zu\r\n\r\n%s", HEAD, strlen(body), body);
    return flush(c);
}

/* The event to be sent next is the last. */
static int is_end(Connection *c) {
    return c->sent == c->events + 2 + c->wants_usage;
}

static const char *const COMMON =
    "\"created\":1763660000,\"id\":\"chatcmpl-00000000000000000000000000000000\",\"model\":\"mock\","
    "\"system_fingerprint\":\"b0000-000000000\",\"object\":\"chat.completion.chunk\"";
static const char *const TIMINGS =
    "\"timings\":{\"cache_n\":0,\"prompt_n\":42,\"prompt_ms\":51.1,\"predicted_n\":%d,\"predicted_ms\":1000.5,"
    "\"predicted_per_second\":199.9}";

/* The role, `events` tokens, the reason of the end, the usage if it was asked for, the end of the stream. */
static int event_text(Connection *c, char *event) {
    int number = c->sent - 1, length;
    const char *delta = number < 0 ? "\"role\":\"assistant\",\"content\":null" : "\"content\":\" token\"";
    if (number < c->events)
        return sprintf(event, "data: {\"choices\":[{\"finish_reason\":null,\"index\":0,\"delta\":{%s}}],%s,\"t\":%lld}\n\n",
            delta, COMMON, now_ns());
    if (number == c->events) {
        length = sprintf(event, "data: {\"choices\":[{\"finish_reason\":\"stop\",\"index\":0,\"delta\":{}}],%s", COMMON);
        if (!c->wants_usage) length += sprintf(event + length, ","), length += sprintf(event + length, TIMINGS, c->events);
        return length + sprintf(event + length, "}\n\n");
    }
    if (!is_end(c)) {
        length = sprintf(event, "data: {\"choices\":[],%s,\"usage\":{\"completion_tokens\":%d,\"prompt_tokens\":42,\"total_tokens\":%d},",
            COMMON, c->events, c->events + 42);
        length += sprintf(event + length, TIMINGS, c->events);
        return length + sprintf(event + length, "}\n\n");
    }
    return sprintf(event, "data: [DONE]\n\n");
}

static void next_chunk(Connection *c) {
    char event[1024];
    int length = event_text(c, event);
    c->out_length = sprintf(c->out, "%x\r\n%s\r\n%s", length, event, is_end(c) ? "0\r\n\r\n" : "");
    c->sent++;
    chunks++;
}

/* Everything that is due; the connection may be gone afterwards. */
static void pump(Connection *c, long long now) {
    while (c->is_streaming && !c->is_blocked && c->due_ns <= now) {
        int is_last = is_end(c);
        next_chunk(c);
        c->due_ns += c->interval_ns;
        if (c->sent == 1 && c->interval_ns) c->due_ns += random() % c->interval_ns;
        if (flush(c) < 0) return drop(c);
        if (!is_last) continue;
        leave_stream(c);
        if (!c->is_blocked) drop(c); /* as llama-server does after a stream */
        return;
    }
}

static void begin_stream(Connection *c, const char *body) {
    const char *events = strstr(body, "\"events\":"), *interval = strstr(body, "\"interval_us\":");
    c->events = events ? atoi(events + 9) : 100;
    c->interval_ns = interval ? atol(interval + 14) * 1000LL : 0;
    c->sent = 0;
    c->wants_usage = strstr(body, "include_usage\":true") || strstr(body, "include_usage\": true");
    c->is_streaming = 1;
    if (stream_count == stream_capacity)
        streams = realloc(streams, (stream_capacity = 2 * stream_capacity + 64) * sizeof *streams);
    c->slot = stream_count;
    streams[stream_count++] = c;
    c->due_ns = now_ns();
    c->out_length = sprintf(c->out, "%stext/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n", HEAD);
    if (flush(c) < 0) return drop(c);
    pump(c, c->due_ns);
}

static int get(Connection *c, const char *path) {
    char stats[200];
    if (!strncmp(path, "/health", 7)) return whole(c, "{\"status\":\"ok\"}");
    if (!strncmp(path, "/props", 6)) return whole(c, "{\"default_generation_settings\":{\"n_ctx\":4096},\"total_slots\":2048}");
    if (!strncmp(path, "/slots", 6)) return whole(c, "[]");
    sprintf(stats, "{\"requests\":%lld,\"chunks\":%lld,\"broken\":%lld,\"accepted\":%lld,\"open\":%lld,\"streams\":%d}",
        requests, chunks, broken, accepted, open_now, stream_count);
    return whole(c, stats);
}

/* One whole request lies at the start of `in`. Nothing may be done with the connection when this says 0. */
static int answer(Connection *c, char *body) {
    char *end = strchr(c->in, '\r');
    if (!strncmp(c->in, "GET ", 4)) {
        int closes = end && !strncmp(end - 8, "HTTP/1.0", 8);
        if (get(c, c->in + 4) >= 0 && !closes) return 1;
        drop(c);
        return 0;
    }
    requests++;
    if (strstr(body, "\"stream\":true") || strstr(body, "\"stream\": true")) {
        begin_stream(c, body);
        return 0; /* one stream per connection, as with llama-server */
    }
    if (whole(c, ANSWER) >= 0) return 1;
    drop(c);
    return 0;
}

/* Length of the whole request at the start of `in`, its body's offset in `body`; 0 while it is incomplete. */
static size_t whole_request(Connection *c, size_t *body) {
    char *end = strstr(c->in, "\r\n\r\n");
    if (!end) return 0;
    *body = end + 4 - c->in;
    char *length = strcasestr(c->in, "content-length:"), *chunked = strcasestr(c->in, "transfer-encoding: chunked");
    if (chunked && chunked < end) {
        char *last = strstr(c->in + *body, "0\r\n\r\n");
        return last ? (size_t)(last + 5 - c->in) : 0;
    }
    size_t size = *body + (length && length < end ? strtoul(length + 15, NULL, 10) : 0);
    return size <= c->in_length ? size : 0;
}

static void readable(Connection *c) {
    if (c->in_capacity - c->in_length < 65536) c->in = realloc(c->in, c->in_capacity = 2 * c->in_capacity + 131072);
    ssize_t n = recv(c->fd, c->in + c->in_length, c->in_capacity - c->in_length - 1, 0);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) return drop(c);
    c->in_length += n;
    for (;;) {
        c->in[c->in_length] = 0;
        size_t body = 0, size = c->is_streaming ? 0 : whole_request(c, &body);
        if (!size) return;
        char *copy = strndup(c->in + body, size - body);
        int goes_on = answer(c, copy);
        free(copy);
        if (!goes_on) return;
        memmove(c->in, c->in + size, c->in_length -= size);
    }
}

static void accept_all(int listener) {
    for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0;) {
        no_delay(fd);
        Connection *c = calloc(1, sizeof *c);
        c->fd = fd;
        c->in = malloc(c->in_capacity = 4096);
        accepted++;
        open_now++;
        watch(epoll, fd, EPOLLIN, c, EPOLL_CTL_ADD);
    }
}

static int listen_on(int port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in address = loopback(port);
    if (bind(fd, (void *)&address, sizeof address) || listen(fd, 4096)) die("listen");
    return fd;
}

int main(int count, char **arguments) {
    int port = 0;
    for (int i = 1; i < count; i++) {
        if (!strcmp(arguments[i], "--version") || !strcmp(arguments[i], "--help")) return puts("version: 0 (mock)") < 0;
        if (!strcmp(arguments[i], "--port") && i + 1 < count) port = atoi(arguments[i + 1]);
    }
    signal(SIGPIPE, SIG_IGN);
    many_files();
    epoll = epoll_create1(0);
    int listener = listen_on(port);
    watch(epoll, listener, EPOLLIN, &listener, EPOLL_CTL_ADD);
    int timer = ticking(epoll, TICK_NS, &epoll);
    struct epoll_event events[512];
    for (;;) {
        int n = epoll_wait(epoll, events, 512, -1);
        for (int i = 0; i < n; i++) {
            void *owner = events[i].data.ptr;
            unsigned long long ticks;
            if (owner == &listener) accept_all(listener);
            else if (owner == &epoll) (void)!read(timer, &ticks, sizeof ticks);
            else if (events[i].events & EPOLLOUT) {
                Connection *c = owner;
                int sent = flush(c);
                if (sent < 0 || (sent > 0 && c->sent > c->events + 2 + c->wants_usage)) drop(c);
            } else readable(owner);
        }
        long long now = now_ns();
        for (int i = stream_count - 1; i >= 0; i--)
            if (i < stream_count) pump(streams[i], now);
    }
}

/* The page of runs over HTTP, by libmicrohttpd: see board.h. */
#include "train/board.h"
#include "train/run_pages.h"
#include <arpa/inet.h>
#include <errno.h>
#include <microhttpd.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct board {
    const char *const *folders;
    i64 n, refresh;
    int port;
    struct MHD_Daemon *daemon;
};

static enum MHD_Result answer(struct MHD_Connection *to, unsigned code, const char *type, const char *data,
                              size_t bytes)
{
    struct MHD_Response *r = MHD_create_response_from_buffer(bytes, (void *)data, MHD_RESPMEM_MUST_COPY);
    if (!r) return MHD_NO; // no memory: the connection is closed
    MHD_add_response_header(r, "Content-Type", type);
    MHD_add_response_header(r, "Cache-Control", "no-store");
    MHD_add_response_header(r, "X-Content-Type-Options", "nosniff");
    if (code == MHD_HTTP_METHOD_NOT_ALLOWED) MHD_add_response_header(r, "Allow", "GET");
    enum MHD_Result sent = MHD_queue_response(to, code, r);
    MHD_destroy_response(r);
    return sent;
}

static enum MHD_Result say(struct MHD_Connection *to, unsigned code, const char *message)
{
    return answer(to, code, "text/plain; charset=utf-8", message, strlen(message));
}

/* Is HOST "127.0.0.1" or "localhost", with port AT or without? */
static bool is_ours(int at, const char *host)
{
    static const char *const names[] = {"127.0.0.1", "localhost"};
    char port[16];
    snprintf(port, sizeof port, ":%d", at);
    for (i64 i = 0; host && i < COUNT(names); i++) {
        size_t n = strlen(names[i]);
        if (!strncmp(host, names[i], n) && (!host[n] || !strcmp(host + n, port))) return true;
    }
    return false;
}

static enum MHD_Result on_request(void *context, struct MHD_Connection *to, const char *url,
                                  const char *method, const char *version, const char *data, size_t *bytes,
                                  void **state)
{
    const board *b = context;
    (void)version, (void)data, (void)state;
    if (*bytes) return *bytes = 0, MHD_YES; // a body: read on, and over it
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(to, MHD_CONNECTION_INFO_DAEMON);
    int port = MHD_get_daemon_info(info->daemon, MHD_DAEMON_INFO_BIND_PORT)->port;
    if (!is_ours(port, MHD_lookup_connection_value(to, MHD_HEADER_KIND, "Host")))
        return say(to, MHD_HTTP_FORBIDDEN, "this page is for 127.0.0.1 only\n");
    if (strcmp(method, "GET")) return say(to, MHD_HTTP_METHOD_NOT_ALLOWED, "only GET is answered\n");
    if (strcmp(url, "/")) return say(to, MHD_HTTP_NOT_FOUND, "there is only one page here: /\n");
    text page = {0};
    status s = run_pages_html(b->folders, b->n, NULL, b->refresh, &page);
    enum MHD_Result sent;
    if (!s)
        sent = answer(to, MHD_HTTP_OK, "text/html; charset=utf-8", page.data, page.bytes);
    else {
        text_free(&page);
        text_add(&page, "%s\n", s->message);
        sent = answer(to, MHD_HTTP_SERVICE_UNAVAILABLE, "text/plain; charset=utf-8", page.data, page.bytes);
    }
    status_drop(s);
    text_free(&page);
    return sent;
}

status board_open(const char *const *folders, i64 n, i64 port, i64 refresh, board **out)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((u16)port)};
    sigset_t all, before;
    board *b;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    TRY(mem_alloc(sizeof *b, "the board", &b));
    *b = (board){.folders = folders, .n = n, .refresh = refresh};
    sigfillset(&all); // signals are the main thread's business
    pthread_sigmask(SIG_SETMASK, &all, &before);
    errno = 0;
    b->daemon = MHD_start_daemon(MHD_USE_INTERNAL_POLLING_THREAD, (u16)port, NULL, NULL, on_request, b,
                                 MHD_OPTION_SOCK_ADDR, (struct sockaddr *)&at, MHD_OPTION_CONNECTION_LIMIT,
                                 32U, MHD_OPTION_CONNECTION_TIMEOUT, 10U, MHD_OPTION_END);
    int e = errno;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!b->daemon) {
        mem_free(b);
        return fail(ERR_IO, "cannot serve on 127.0.0.1:%lld: %s; choose another --port, or 0 for a free one",
                    (long long)port, e ? strerror(e) : "no reason given");
    }
    b->port = MHD_get_daemon_info(b->daemon, MHD_DAEMON_INFO_BIND_PORT)->port;
    *out = b;
    return OK;
}

int board_port(const board *b) { return b->port; }

void board_close(board *b)
{
    if (!b) return;
    MHD_stop_daemon(b->daemon);
    mem_free(b);
}

/* The FUSE channel from inside: requests in channel.c, answers in reply.c and notify.c. */
#ifndef HOLDFAST_CHANNEL_H
#define HOLDFAST_CHANNEL_H
#include "holdfast.h"

struct channel {
  uv_poll_t poll;
  napi_env env;
  napi_ref on_request, on_closed;
  int fd;
  bool running;
  unsigned misses; /* spins in a row that found nothing */
  int holders; /* functions, buffers, jobs and the poll handle: the last one frees */
  size_t request_size, payload_size;
  char *request, *payload;
  struct job *queued, **queue_end; /* notifications beyond NOTIFY_LIMIT */
  int notifying;
};

/* Takes one holder away. */
void channel_release(struct channel *channel);

/* Methods of the channel's object; their data is the channel. */
napi_value reply_plain(napi_env env, napi_callback_info info);
napi_value reply_with(napi_env env, napi_callback_info info);
napi_value reply_pieces(napi_env env, napi_callback_info info);
napi_value notify(napi_env env, napi_callback_info info);

#endif

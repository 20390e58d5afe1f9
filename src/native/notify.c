/*
 * Notifications to the kernel, written by libuv's workers: the kernel may wait, inside that write,
 * for answers that this process owes it.
 */
#include "channel.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Two of libuv's four worker threads at most: the kernel may let a notification wait for a request
 * whose answer waits for an msync, and that needs a worker too. */
#define NOTIFY_LIMIT 2

/* Answers that mean there is nothing left to forget. */
static int is_gone(int error) {
  return error == ENOENT || error == ENODEV || error == ENOTCONN || error == ECONNABORTED;
}

/* One after another, each begins with its length; what the kernel refuses does not stop those
 * behind it. */
static int notify_run(struct job *job) {
  int refused = 0;
  uint32_t length;
  for (size_t at = 0; at < job->length; at += length) {
    if (job->length - at < sizeof length) return EINVAL;
    memcpy(&length, job->data + at, sizeof length);
    if (length < sizeof length || length > job->length - at) return EINVAL;
    ssize_t written;
    do written = write(job->fd, job->data + at, length);
    while (written < 0 && errno == EINTR);
    if (written < 0 && !is_gone(errno) && refused == 0) refused = errno;
  }
  return refused;
}

static void notify_next(napi_env env, struct channel *channel) {
  while (channel->notifying < NOTIFY_LIMIT && channel->queued != NULL) {
    struct job *job = channel->queued;
    channel->queued = job->next;
    if (channel->queued == NULL) channel->queue_end = &channel->queued;
    channel->notifying++;
    job_queue(env, job);
  }
}

static void notify_done(napi_env env, struct job *job) {
  struct channel *channel = job->owner;
  free(job->data);
  free(job);
  channel->notifying--;
  notify_next(env, channel);
  channel_release(channel);
}

napi_value notify(napi_env env, napi_callback_info info) {
  struct args args = args_read(env, info);
  struct channel *channel = args.data;
  struct bytes message = arg_bytes(&args, 0);
  napi_value promise;
  if (args.bad) return NULL;
  char *copy = malloc(message.length + 1);
  if (copy == NULL) return throw_errno(env, ENOMEM, "notify");
  struct job *job = job_new(env, &promise);
  job->run = notify_run;
  job->done = notify_done;
  job->owner = channel;
  job->fd = channel->fd;
  job->data = memcpy(copy, message.data, message.length);
  job->length = message.length;
  channel->holders++;
  *channel->queue_end = job;
  channel->queue_end = &job->next;
  notify_next(env, channel);
  return promise;
}

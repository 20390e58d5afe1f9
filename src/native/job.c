/* Blocking calls on libuv's worker threads. */
#include "holdfast.h"

#include <stdlib.h>

static void job_execute(napi_env env, void *data) {
  struct job *job = data;
  (void)env; /* no JavaScript on this thread */
  job->result = job->run(job);
}

static void job_complete(napi_env env, napi_status status, void *data) {
  struct job *job = data;
  (void)status; /* jobs are never cancelled */
  if (job->reject_as != NULL && job->result != 0) {
    napi_reject_deferred(env, job->deferred, errno_value(env, job->result, job->reject_as));
  } else {
    napi_value value;
    if (job->reject_as == NULL) value = number_value(env, job->result);
    else napi_get_undefined(env, &value);
    napi_resolve_deferred(env, job->deferred, value);
  }
  napi_delete_async_work(env, job->work);
  job->done(env, job);
}

struct job *job_new(napi_env env, napi_value *promise) {
  struct job *job = calloc(1, sizeof *job);
  napi_value name;
  if (job == NULL) abort();
  napi_create_string_utf8(env, "holdfast", NAPI_AUTO_LENGTH, &name);
  napi_create_async_work(env, NULL, name, job_execute, job_complete, job, &job->work);
  napi_create_promise(env, &job->deferred, promise);
  return job;
}

void job_queue(napi_env env, struct job *job) { napi_queue_async_work(env, job->work); }

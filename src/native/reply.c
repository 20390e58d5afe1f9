/* Answers to FUSE requests, READ's straight from the mapping. Nothing here allocates. */
#include "channel.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/uio.h>

#define PIECES_MAX (IOV_MAX - 1)

struct out_header {
  uint32_t length;
  int32_t error;
  uint64_t unique;
};

static char zeros[64 << 10]; /* what holes read as; .bss, so no larger on disk */

static struct out_header *header_for(struct out_header *header, uint64_t unique, int error,
                                     size_t payload) {
  *header = (struct out_header){(uint32_t)(sizeof *header + payload), -error, unique};
  return header;
}

/* Returns 0 or an errno. ENOENT: the request was interrupted and nobody wants the answer. */
static int send_parts(int fd, const struct iovec *parts, int count) {
  ssize_t written;
  do written = writev(fd, parts, count);
  while (written < 0 && errno == EINTR);
  return written < 0 ? errno : 0;
}

static int send_reply(int fd, uint64_t unique, int error, char *payload, size_t length) {
  struct out_header header;
  struct iovec parts[2] = {{header_for(&header, unique, error, length), sizeof header},
                           {payload, length}};
  return send_parts(fd, parts, length > 0 ? 2 : 1);
}

napi_value reply_plain(napi_env env, napi_callback_info info) {
  struct args args = args_read(env, info);
  struct channel *channel = args.data;
  uint64_t unique = arg_size(&args, 0), length = arg_size(&args, 2);
  int error = arg_int(&args, 1);
  if (length > channel->payload_size)
    args_fail_range(&args, "a reply is at most %zu bytes long", channel->payload_size);
  if (args.bad) return NULL;
  return number_value(env, send_reply(channel->fd, unique, error, channel->payload, length));
}

napi_value reply_with(napi_env env, napi_callback_info info) {
  struct args args = args_read(env, info);
  struct channel *channel = args.data;
  uint64_t unique = arg_size(&args, 0);
  int error = arg_int(&args, 1);
  struct bytes payload = arg_bytes(&args, 2);
  if (args.bad) return NULL;
  return number_value(env, send_reply(channel->fd, unique, error, payload.data, payload.length));
}

/* A READ's answer: pairs of (region offset or -1, length), checked by arg_pieces. */
struct pieces {
  struct mapping *map;
  const double *pairs;
  size_t count, bytes;
};

static bool piece_is_hole(const struct pieces *pieces, size_t i) {
  return pieces->pairs[2 * i] < 0;
}

static size_t piece_offset(const struct pieces *pieces, size_t i) {
  return (size_t)pieces->pairs[2 * i];
}

static size_t piece_length(const struct pieces *pieces, size_t i) {
  return (size_t)pieces->pairs[2 * i + 1];
}

static void check_piece(struct args *args, struct pieces *pieces, size_t i) {
  double offset = pieces->pairs[2 * i], length = pieces->pairs[2 * i + 1];
  double limit = (double)pieces->map->length;
  /* Written so that NaN fails; fractions are harmless, for both are cut to integers below. */
  bool inside = length >= 0 && length <= limit && offset >= -1 && offset <= limit &&
                (offset == -1 || offset + length <= limit);
  if (!inside || (offset < 0 && offset != -1))
    args_fail_range(args, "piece %zu: %g bytes at %g are outside the mapping", i, length, offset);
  else
    pieces->bytes += (size_t)length;
}

static struct pieces arg_pieces(struct args *args, const struct channel *channel) {
  struct pieces pieces = {.map = arg_map(args, 1), .count = arg_size(args, 3)};
  napi_typedarray_type type = napi_int8_array;
  size_t length = 0;
  void *data = NULL;
  if (args->bad) return pieces;
  if (napi_get_typedarray_info(args->env, args->value[2], &type, &length, &data, NULL, NULL) !=
          napi_ok || type != napi_float64_array || pieces.count > length / 2)
    args_fail_range(args, "argument 3 must be a Float64Array of at least %zu pairs", pieces.count);
  pieces.pairs = data;
  for (size_t i = 0; i < pieces.count && !args->bad; i++) check_piece(args, &pieces, i);
  if (pieces.bytes > channel->payload_size)
    args_fail_range(args, "a reply is at most %zu bytes long", channel->payload_size);
  return pieces;
}

/*
 * The kernel itself answers EIO once it has met a bad page in a reply, and then the caller has no
 * say. So touch the pages first: cheap, and it faults them in as well.
 */
static double probe_pieces(const struct pieces *pieces) {
  double result = GUARD_OK;
  for (size_t i = 0; i < pieces->count && result == GUARD_OK; i++)
    if (!piece_is_hole(pieces, i))
      result = guard_probe(pieces->map, piece_offset(pieces, i), piece_length(pieces, i));
  return result;
}

/* Fills parts[1..]; the number of parts with the header, or 0 when they are too many for writev. */
static int make_parts(const struct pieces *pieces, struct iovec *parts) {
  size_t used = 1;
  for (size_t i = 0; i < pieces->count; i++) {
    bool hole = piece_is_hole(pieces, i);
    char *from = hole ? zeros : pieces->map->base + piece_offset(pieces, i);
    size_t left = piece_length(pieces, i);
    while (left > 0) {
      size_t length = hole && left > sizeof zeros ? sizeof zeros : left;
      if (used > PIECES_MAX) return 0;
      parts[used++] = (struct iovec){from, length};
      left -= length;
    }
  }
  return (int)used;
}

/* The slow way: everything through the payload buffer. */
static double bounce_pieces(struct channel *channel, uint64_t unique, const struct pieces *pieces) {
  char *to = channel->payload;
  double result = GUARD_OK;
  for (size_t i = 0; i < pieces->count && result == GUARD_OK; i++) {
    size_t length = piece_length(pieces, i);
    if (piece_is_hole(pieces, i)) memset(to, 0, length);
    else result = guard_copy_out(pieces->map, piece_offset(pieces, i), to, length);
    to += length;
  }
  if (result == GUARD_OK) send_reply(channel->fd, unique, 0, channel->payload, pieces->bytes);
  return result;
}

static double send_pieces(struct channel *channel, uint64_t unique, const struct pieces *pieces) {
  struct out_header header;
  struct iovec parts[PIECES_MAX + 1];
  double failed = probe_pieces(pieces);
  if (failed != GUARD_OK) return failed;
  parts[0] = (struct iovec){header_for(&header, unique, 0, pieces->bytes), sizeof header};
  int count = make_parts(pieces, parts);
  if (count == 0) return bounce_pieces(channel, unique, pieces);
  if (send_parts(channel->fd, parts, count) != EFAULT) return GUARD_OK;
  /* Gone bad since the probe: find out where. */
  failed = probe_pieces(pieces);
  return failed != GUARD_OK ? failed : bounce_pieces(channel, unique, pieces);
}

napi_value reply_pieces(napi_env env, napi_callback_info info) {
  struct args args = args_read(env, info);
  struct channel *channel = args.data;
  uint64_t unique = arg_size(&args, 0);
  struct pieces pieces = arg_pieces(&args, channel);
  if (args.bad) return NULL;
  return number_value(env, send_pieces(channel, unique, &pieces));
}

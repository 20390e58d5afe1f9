/* Where on its disk a file lies (FIEMAP), for lists of bad blocks that count as the disk does. */
#include "holdfast.h"

#include <errno.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>

#define BATCH 256

/* No whole blocks of the disk that hold the bytes of the file as they are. */
#define ELSEWHERE                                                                                 \
  (FIEMAP_EXTENT_UNKNOWN | FIEMAP_EXTENT_ENCODED | FIEMAP_EXTENT_DATA_INLINE |                    \
   FIEMAP_EXTENT_DATA_TAIL | FIEMAP_EXTENT_NOT_ALIGNED)

/* fileExtents(fd): [offset, place on the disk, length, offset, …], ascending. */
static napi_value js_file_extents(napi_env env, napi_callback_info info) {
  struct args args = args_read(env, info);
  int fd = arg_int(&args, 0);
  struct {
    struct fiemap map;
    struct fiemap_extent extents[BATCH];
  } request;
  napi_value result;
  uint32_t used = 0;
  uint64_t start = 0;
  bool last = false;
  if (args.bad) return NULL;
  napi_create_array(env, &result);
  while (!last) {
    memset(&request, 0, sizeof request);
    request.map.fm_start = start;
    request.map.fm_length = FIEMAP_MAX_OFFSET - start;
    request.map.fm_flags = FIEMAP_FLAG_SYNC;
    request.map.fm_extent_count = BATCH;
    if (ioctl(fd, FS_IOC_FIEMAP, &request.map) < 0) return throw_errno(env, errno, "FIEMAP");
    last = request.map.fm_mapped_extents == 0;
    for (uint32_t i = 0; i < request.map.fm_mapped_extents; i++) {
      const struct fiemap_extent *extent = &request.map.fm_extents[i];
      start = extent->fe_logical + extent->fe_length;
      if (extent->fe_flags & FIEMAP_EXTENT_LAST) last = true;
      if (extent->fe_flags & ELSEWHERE) continue;
      napi_set_element(env, result, used++, number_value(env, (double)extent->fe_logical));
      napi_set_element(env, result, used++, number_value(env, (double)extent->fe_physical));
      napi_set_element(env, result, used++, number_value(env, (double)extent->fe_length));
    }
  }
  return result;
}

void extents_register(napi_env env, napi_value exports) {
  static const struct method methods[] = {{"fileExtents", js_file_extents}};
  register_methods(env, exports, methods, sizeof methods / sizeof *methods);
}

{
  "targets": [
    {
      "target_name": "holdfast",
      "sources": [
        "module.c", "job.c", "map.c", "signal.c", "guard.c", "persist.c", "checksum.c",
        "poison.c", "lock.c", "mount.c", "channel.c", "nvdimm.c", "reply.c", "notify.c",
        "extents.c", "words.c"
      ],
      "defines": ["_GNU_SOURCE", "_FILE_OFFSET_BITS=64", "NAPI_VERSION=9"],
      "cflags": ["-O2", "-Wall", "-Wextra", "-Werror=implicit", "-fvisibility=hidden"],
      "cflags_c": ["-std=gnu11"]
    }
  ]
}

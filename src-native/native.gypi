{
  "variables": {
    "hast_core_sources": [
      "src-native/base/assert.cc",
      "src-native/base/error_codes.cc",
      "src-native/codec/activemap.cc",
      "src-native/codec/checksum.cc",
      "src-native/codec/compression.cc",
      "src-native/codec/layout.cc",
      "src-native/codec/metadata.cc",
      "src-native/codec/nv.cc",
      "src-native/codec/rangelock.cc",
      "src-native/disk/fault_component.cc",
      "src-native/disk/file_component.cc",
      "src-native/gate/nbd_connection.cc",
      "src-native/gate/nbd_connection_read.cc",
      "src-native/gate/nbd_connection_write.cc",
      "src-native/gate/nbd_format.cc",
      "src-native/gate/nbd_gate.cc",
      "src-native/gate/nbd_negotiation.cc",
      "src-native/ring/buffers.cc",
      "src-native/ring/loop.cc",
      "src-native/ring/mailbox.cc",
      "src-native/ring/pipe_stream.cc",
      "src-native/ring/ring.cc",
      "src-native/ring/sim_loop.cc",
      "src-native/ring/socket.cc",
      "src-native/ring/stream.cc",
      "src-native/ring/task.cc",
      "src-native/wire/errno_map.cc",
      "src-native/wire/format.cc"
    ],
    "hast_addon_sources": [
      "src-native/binding/addon.cc",
      "src-native/binding/arguments.cc",
      "src-native/binding/codec_binding.cc",
      "src-native/binding/host_binding.cc"
    ],
    "hast_defines": [
      "_GNU_SOURCE",
      "_FILE_OFFSET_BITS=64"
    ],
    "hast_cflags": [
      "-std=c++20",
      "-fno-exceptions",
      "-fno-rtti",
      "-fvisibility=hidden"
    ],
    "hast_warnings": [
      "-Wall",
      "-Wextra",
      "-Wpedantic",
      "-Wshadow",
      "-Wconversion",
      "-Werror"
    ]
  }
}

/** Bounds shared with the core; `native.codec.limits()` names the same ones and a test compares. */
export const LIMITS = {
  requestBytesMax: 131072,
  messageBytesMax: 65536,
  metadataBytes: 4096,
  mapBytesMax: 64 * 1024 * 1024,
  nameBytesMax: 254,
  sectorBytesMin: 512,
  sectorBytesMax: 4096,
  extentBytesMin: 131072,
  extentBytesMax: 1024 * 1024 * 1024,
} as const;

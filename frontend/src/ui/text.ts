/** Words on controls that are the same everywhere. */
export const text = {
  cancel: "Cancel",
  copy: "Copy",
  copied: "Copied",
} as const;

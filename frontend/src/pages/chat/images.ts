/** Images attached to a message. */

import type { ImageBody } from "../../../../clients/typescript/src/api";

export const MAX_IMAGES = 16;
export const IMAGE_TYPES: readonly ImageBody["media_type"][] = ["image/png", "image/jpeg", "image/gif", "image/webp"];

export const isImage = (file: Blob): boolean => (IMAGE_TYPES as readonly string[]).includes(file.type);

/** Image with its bytes in base64. Raises DOMException for a file that cannot be read. */
export async function readImage(file: File): Promise<ImageBody> {
  const url = await new Promise<string>((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result as string);
    reader.onerror = () => reject(reader.error!);
    reader.readAsDataURL(file);
  });
  return { media_type: file.type as ImageBody["media_type"], data: url.slice(url.indexOf(",") + 1), name: file.name };
}

export const dataUrl = (image: ImageBody): string => `data:${image.media_type};base64,${image.data}`;

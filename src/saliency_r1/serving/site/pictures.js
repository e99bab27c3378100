// Pictures that are made in the browser.

const CONTRAST = 2;  // how much steeper a cut-out's alpha is than the mask, as in saliency_r1.cutting

/** The cut-out on a colour such as "#ffffff", as a PNG blob. */
export async function onBackground(cutout, colour) {
  const picture = await createImageBitmap(cutout);
  const {canvas, context} = paper(picture);
  context.fillStyle = colour;
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(picture, 0, 0);
  return encoded(canvas);
}

/** What of the cut-out lies in one object's mask, as a PNG blob. */
export async function objectAlone(cutout, mask) {
  const [picture, grey] = await Promise.all([createImageBitmap(cutout), createImageBitmap(mask)]);
  const {canvas, context} = paper(picture);
  const inside = drawn(paper(picture).context, grey).data;
  const pixels = drawn(context, picture);
  for (let at = 0; at < inside.length; at += 4) {
    const alpha = 255 * Math.min(1, Math.max(0, CONTRAST * (inside[at] / 255 - 0.5) + 0.5));
    pixels.data[at + 3] = Math.min(pixels.data[at + 3], alpha);
  }
  context.putImageData(pixels, 0, 0);
  return encoded(canvas);
}

function paper({width, height}) {
  const canvas = Object.assign(document.createElement("canvas"), {width, height});
  return {canvas, context: canvas.getContext("2d", {willReadFrequently: true})};
}

function drawn(context, picture) {
  context.drawImage(picture, 0, 0);
  return context.getImageData(0, 0, picture.width, picture.height);
}

function encoded(canvas) {
  return new Promise(resolve => canvas.toBlob(resolve, "image/png"));
}

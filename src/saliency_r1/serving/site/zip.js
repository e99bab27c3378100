// Archives whose files are stored as they are: pictures are compressed already.

const END = 0x06054b50, ENTRY = 0x02014b50, LOCAL = 0x04034b50, UTF8 = 0x0800;

const TABLE = Uint32Array.from({length: 256}, (_, index) => {
  let value = index;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
  return value;
});

export function crc32(bytes) {
  let value = 0xffffffff;
  for (const byte of bytes) value = TABLE[(value ^ byte) & 255] ^ (value >>> 8);
  return (value ^ 0xffffffff) >>> 0;
}

/** The files of an archive that the server made, in their order: [{name, bytes}]. */
export function readZip(buffer) {
  const view = new DataView(buffer);
  let end = buffer.byteLength - 22;
  while (end >= 0 && view.getUint32(end, true) !== END) end--;
  if (end < 0) throw new Error("The server's answer is no zip archive.");
  const files = [];
  let at = view.getUint32(end + 16, true);
  for (let left = view.getUint16(end + 10, true); left > 0; left--) {
    const size = view.getUint32(at + 20, true), nameLength = view.getUint16(at + 28, true);
    const local = view.getUint32(at + 42, true);
    const start = local + 30 + view.getUint16(local + 26, true) + view.getUint16(local + 28, true);
    const name = new TextDecoder().decode(new Uint8Array(buffer, at + 46, nameLength));
    files.push({name, bytes: new Uint8Array(buffer, start, size)});
    at += 46 + nameLength + view.getUint16(at + 30, true) + view.getUint16(at + 32, true);
  }
  return files;
}

/** An archive of these files, [{name, bytes}], as a blob. */
export function writeZip(files) {
  const parts = [], directory = [];
  let offset = 0, directorySize = 0;
  for (const {name, bytes} of files) {
    const label = new TextEncoder().encode(name);
    const facts = [20, UTF8, 0, ...dosTime(new Date()), crc32(bytes), bytes.length, bytes.length, label.length, 0];
    const local = packed([LOCAL, ...facts], [4, 2, 2, 2, 2, 2, 4, 4, 4, 2, 2]);
    parts.push(local, label, bytes);
    const entry = packed([ENTRY, 20, ...facts, 0, 0, 0, 0, offset], [4, 2, 2, 2, 2, 2, 2, 4, 4, 4, 2, 2, 2, 2, 2, 4, 4]);
    directory.push(entry, label);
    offset += local.length + label.length + bytes.length;
    directorySize += entry.length + label.length;
  }
  const end = packed([END, 0, 0, files.length, files.length, directorySize, offset, 0], [4, 2, 2, 2, 2, 4, 4, 2]);
  return new Blob([...parts, ...directory, end], {type: "application/zip"});
}

function packed(values, widths) {
  const bytes = new Uint8Array(widths.reduce((sum, width) => sum + width, 0));
  const view = new DataView(bytes.buffer);
  let at = 0;
  widths.forEach((width, index) => {
    if (width === 4) view.setUint32(at, values[index], true);
    else view.setUint16(at, values[index], true);
    at += width;
  });
  return bytes;
}

function dosTime(date) {
  return [
    (date.getHours() << 11) | (date.getMinutes() << 5) | (date.getSeconds() >> 1),
    ((date.getFullYear() - 1980) << 9) | ((date.getMonth() + 1) << 5) | date.getDate(),
  ];
}

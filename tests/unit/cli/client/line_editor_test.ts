import assert from "node:assert/strict";
import { type EditorEvent, LineEditor } from "../../../../mod/cli/client/line_editor.ts";

function feed(editor: LineEditor, text: string): EditorEvent[] {
  return editor.feed(new TextEncoder().encode(text));
}

function typed(...pieces: string[]): LineEditor {
  const editor = new LineEditor();
  for (const piece of pieces) feed(editor, piece);
  return editor;
}

Deno.test("feed() gives lines as they are finished", () => {
  const editor = new LineEditor();
  assert.deepEqual(feed(editor, "one\rtw"), [{ kind: "line", text: "one" }]);
  assert.deepEqual(feed(editor, "o\n"), [{ kind: "line", text: "two" }]);
  assert.equal(editor.text, "");
});

Deno.test("keys move in the line and change it", () => {
  assert.equal(typed("helo\x1b[Dl").text, "hello");
  assert.equal(typed("world\x01hello \x05!").text, "hello world!");
  assert.equal(typed("abc\x1b[H\x1b[3~").text, "bc");
  assert.equal(typed("one two  \x17").text, "one ");
  assert.equal(typed("one two\x02\x02\x02\x0b").text, "one ");
  assert.equal(typed("one two\x02\x02\x02\x15").text, "two");
  assert.equal(typed("👩‍👩‍👧x\x7f\x7f").text, "");
  assert.equal(typed("a\tb").text, "a b");
});

Deno.test("a key or a character that comes in pieces is one", () => {
  assert.equal(typed("ab\x1b", "[", "Dx").text, "axb");
  const editor = new LineEditor();
  for (const byte of new TextEncoder().encode("ö日")) editor.feed(new Uint8Array([byte]));
  assert.equal(editor.text, "ö日");
});

Deno.test("unknown keys leave nothing in the line", () => {
  assert.equal(typed("a\x1b[15~\x1b[1;5C\x1bx\x00b").text, "ab");
});

Deno.test("Ctrl-C ends; Ctrl-D ends only in an empty line", () => {
  assert.deepEqual(feed(new LineEditor(), "text\x03"), [{ kind: "end" }]);
  assert.deepEqual(feed(new LineEditor(), "\x04"), [{ kind: "end" }]);
  assert.deepEqual(feed(new LineEditor(), "text\x04"), []);
});

Deno.test("the history comes back with the arrows, and the line that was begun after it", () => {
  const editor = typed("one\r", "two\r", "dra");
  feed(editor, "\x1b[A");
  assert.equal(editor.text, "two");
  feed(editor, "\x1b[A\x1b[A");
  assert.equal(editor.text, "one");
  feed(editor, "\x1b[B\x1b[B");
  assert.equal(editor.text, "dra");
});

Deno.test("pasted lines stay one message", () => {
  const editor = new LineEditor();
  assert.deepEqual(feed(editor, "\x1b[200~one\rtwo\x03\x1b[201~"), []);
  assert.equal(editor.view(80).text, "one⏎two");
  assert.deepEqual(feed(editor, "\r"), [{ kind: "line", text: "one\ntwo" }]);
});

Deno.test("view() shows the part around the cursor, whatever is wide", () => {
  const editor = typed("0123456789");
  assert.deepEqual(editor.view(80), { text: "0123456789", cursorColumn: 10 });
  assert.deepEqual(editor.view(6), { text: "56789", cursorColumn: 5 });
  feed(editor, "\x01");
  assert.deepEqual(editor.view(6), { text: "01234", cursorColumn: 0 });
  assert.deepEqual(typed("日本語").view(6), { text: "本語", cursorColumn: 4 });
});

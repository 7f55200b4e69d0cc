"""The page for people: what can be called, and a form to try it; nothing from elsewhere."""

__all__ = ["PAGE"]

PAGE = b"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Modelport</title>
<style>
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; }
body { max-width: 56rem; margin: 2rem auto; padding: 0 1rem; }
summary { cursor: pointer; padding: .5rem; font-family: ui-monospace, monospace; }
details { border: 1px solid #8886; border-radius: .4rem; margin: .5rem 0; }
details > div { padding: 0 .8rem .8rem; }
textarea { width: 100%; min-height: 7rem; font: 13px monospace; box-sizing: border-box; }
pre { overflow: auto; background: #8881; padding: .6rem; border-radius: .3rem; max-height: 24rem; }
button { padding: .3rem .9rem; }
.doc { white-space: pre-wrap; opacity: .8; }
</style>
</head>
<body>
<h1 id="title">Modelport</h1>
<p id="about" class="doc"></p>
<main id="list"></main>
<p><a href="schema.json">schema.json</a> &middot; <a href="docs.json">docs.json</a></p>
<script>
"use strict";
const make = (tag, text, parent) => {
  const node = document.createElement(tag);
  if (text) node.textContent = text;
  if (parent) parent.append(node);
  return node;
};
const example = schema => {
  if (!schema) return null;
  if ("default" in schema) return schema.default;
  if (schema.enum) return schema.enum[0];
  switch (schema.type) {
    case "string": return "";
    case "integer": case "number": return 0;
    case "boolean": return false;
    case "array": return [];
    case "object": return Object.fromEntries(
      Object.entries(schema.properties || {}).map(([name, each]) => [name, example(each)]));
    default: return null;
  }
};
const show = (route, item, parent) => {
  const box = make("details", "", parent);
  make("summary", "POST " + route, box);
  const inside = make("div", "", box);
  if (item.description) make("p", item.description, inside).className = "doc";
  const [type, body] = Object.entries(item.requestBody.content)[0];
  const field = make("textarea", "", inside);
  const schema = body.schema;
  field.value = type === "text/plain" ? "" : JSON.stringify(example(schema), null, 2);
  const files = {};
  for (const [name, each] of Object.entries(schema.properties || {})) {
    if (type !== "multipart/form-data") break;
    const inner = each.type === "array" ? each.items : each;
    if (inner && "contentMediaType" in inner) {
      const label = make("p", name + ": ", inside);
      const input = make("input", "", label);
      input.type = "file";
      input.multiple = each.type === "array";
      files[name] = input;
    }
  }
  const button = make("button", "Call", inside);
  const answer = make("pre", "", inside);
  answer.hidden = true;
  button.onclick = async () => {
    answer.hidden = false;
    answer.textContent = "...";
    try {
      let sent = field.value, headers = {"content-type": type};
      if (type === "multipart/form-data") {
        headers = {};
        const given = JSON.parse(field.value || "{}");
        sent = new FormData();
        for (const [name, value] of Object.entries(given))
          if (!(name in files)) sent.append(name, JSON.stringify(value));
        for (const [name, input] of Object.entries(files))
          for (const file of input.files) sent.append(name, file, file.name);
      }
      const reply = await fetch(base + route, {method: "POST", headers, body: sent});
      const kind = reply.headers.get("content-type") || "";
      answer.textContent = reply.status + " " + kind + "\\n";
      if (kind.startsWith("image/")) {
        make("img", "", answer).src = URL.createObjectURL(await reply.blob());
        return;
      }
      const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const {done, value} = await reader.read();
        if (done) break;
        answer.append(value);
      }
    } catch (error) { answer.append("\\n" + error); }
  };
};
const here = location.pathname.replace(/\\/(docs)?$/, "");
let base = "";
fetch(here + "/docs.json").then(reply => reply.json()).then(api => {
  document.title = api.info.title;
  document.getElementById("title").textContent = api.info.title;
  document.getElementById("about").textContent = api.info.description;
  for (const [route, item] of Object.entries(api.paths))
    show(route, item.post, document.getElementById("list"));
});
</script>
</body>
</html>
"""

// Drives one headless Chromium for the end-to-end tests. Requests and answers are JSON lines on
// standard input and output: {"id", "method", "params"} -> {"id", "result"} or {"id", "error"}.
// Every peer is a page of its own with one RTCPeerConnection (page.js). The browser ends when
// standard input does.
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const ARGUMENTS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--autoplay-policy=no-user-gesture-required",
];

const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
const server = await chromium.launchServer({ executablePath, args: ARGUMENTS });
const browser = await chromium.connect(server.wsEndpoint());
const context = await browser.newContext();
await context.addInitScript({ path: new URL("page.js", import.meta.url).pathname });
const pages = new Map();

const methods = {
  about: () => ({ pid: server.process().pid, version: browser.version() }),
  async open(params) {
    const page = await context.newPage();
    await page.goto("about:blank");
    const peer = `page-${pages.size + 1}`;
    pages.set(peer, page);
    await inPage(page, "open", params);
    return { peer };
  },
  async leave({ peer }) {
    await pages.get(peer).close();
    return {};
  },
};

function inPage(page, method, params) {
  return page.evaluate(([name, argument]) => window.party[name](argument), [method, params]);
}

async function answer(line) {
  const { id, method, params = {} } = JSON.parse(line);
  let reply;
  try {
    const own = methods[method];
    reply = { id, result: await (own ? own(params) : inPage(pages.get(params.peer), method, params)) };
  } catch (error) {
    reply = { id, error: String(error?.message ?? error) };
  }
  process.stdout.write(`${JSON.stringify(reply)}\n`);
}

const lines = createInterface({ input: process.stdin });
lines.on("line", answer);
lines.on("close", async () => {
  await server.close().catch(() => {});
  process.exit(0);
});

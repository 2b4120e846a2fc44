# Node: worker threads, child processes, files, streams, an HTTP server with its client.
# needs: node

node -e 'console.log([3, 1, 2].sort().join(), 2n ** 70n, process.argv.length)'
cat >main.mjs <<'JS'
import { Worker, isMainThread, parentPort, workerData } from "node:worker_threads";
import { exec, fork, spawn } from "node:child_process";
import { promises as fs, createReadStream, createWriteStream } from "node:fs";
import { createGzip, gunzipSync } from "node:zlib";
import { pipeline } from "node:stream/promises";
import { fileURLToPath } from "node:url";
import { createHash } from "node:crypto";
import { promisify } from "node:util";
import { once } from "node:events";
import http from "node:http";
import net from "node:net";

const here = fileURLToPath(import.meta.url);
if (!isMainThread) {
  parentPort.postMessage(workerData * workerData);
} else if (process.argv[2] === "child") {
  process.on("message", (n) => process.send(n + 1, () => process.disconnect()));
} else {
  const squares = await Promise.all([1, 2, 3, 4].map(async (workerData) => {
    const [answer] = await once(new Worker(here, { workerData }), "message");
    return answer;
  }));
  console.log("workers", squares);

  const { stdout } = await promisify(exec)("echo $((6 * 7)); echo to err >&2");
  console.log("exec", stdout.trim());
  const child = fork(here, ["child"]);
  child.send(41);
  console.log("fork", (await once(child, "message"))[0], (await once(child, "exit"))[0]);
  const cat = spawn("cat", { stdio: ["pipe", "pipe", "inherit"] });
  cat.stdin.end("through cat");
  console.log("spawn", String((await once(cat.stdout, "data"))[0]));
  const sleep = spawn("sleep", ["60"]);
  sleep.kill("SIGTERM");
  console.log("killed", await once(sleep, "exit"));

  await fs.mkdir("a/b", { recursive: true });
  await fs.writeFile("a/b/file", "x".repeat(300000));
  await pipeline(createReadStream("a/b/file"), createGzip(), createWriteStream("a/file.gz"));
  console.log("files", gunzipSync(await fs.readFile("a/file.gz")).length, await fs.readdir("a"), (await fs.stat("a/b/file")).size);
  await fs.rename("a/b/file", "a/renamed");
  await fs.rm("a", { recursive: true });
  console.log("gone", await fs.access("a").then(() => false, (error) => error.code));

  const server = http.createServer((request, response) => {
    let body = "";
    request.on("data", (part) => (body += part)).on("end", () => response.end(`${request.method} ${body.length}`));
  });
  await once(server.listen(0, "127.0.0.1"), "listening");
  const url = `http://127.0.0.1:${server.address().port}/`;
  const answers = await Promise.all([...Array(10).keys()].map((n) => new Promise((resolve, reject) => {
    const request = http.request(url, { method: "POST" }, (response) => {
      response.setEncoding("utf8").on("data", resolve);
    });
    request.on("error", reject).end("y".repeat(n * 1000));
  })));
  console.log("http", answers.sort());
  server.close();
  const refused = net.connect(1, "127.0.0.1");
  console.log("refused", (await once(refused, "error"))[0].code);
  console.log(createHash("sha256").update("text").digest("hex").slice(0, 16));
  await new Promise((resolve) => setTimeout(resolve, 20));
}
JS
node main.mjs
node -e 'process.exitCode = 5' || echo "status $?"
echo 'console.log(require("os").EOL === "\n")' | node -

// The page: passes frames between Python's WebSocket and the worker that does the work, and reports what goes wrong in either.
import { isHeapMessage, measureHeap, type HeapMessage } from "./heap";
import type { ErrorClass, Failure } from "./protocol";

const token = new URLSearchParams(location.hash.slice(1)).get("token") ?? "";
history.replaceState(null, "", location.pathname); // the token opens one socket; keep it out of the history

const socket = new WebSocket(`ws://${location.host}/bridge?token=${encodeURIComponent(token)}`);
socket.binaryType = "arraybuffer";
const worker = new Worker("worker.mjs", { type: "module", name: String(performance.timeOrigin) }); // from where the worker counts

function report(error_class: ErrorClass, message: string): void {
  const failure: Failure = { type: "Failure", id: 0, error_class, message };
  const send = () => socket.send(JSON.stringify(failure));
  if (socket.readyState === WebSocket.CONNECTING) socket.addEventListener("open", send, { once: true });
  else send();
}

socket.onmessage = ({ data }: MessageEvent<string | ArrayBuffer>) =>
  worker.postMessage(data, typeof data === "string" ? [] : [data]);
socket.onclose = () => worker.terminate();
worker.onmessage = ({ data }: MessageEvent<string | ArrayBuffer | HeapMessage>) => {
  if (isHeapMessage(data)) void measureHeap().then((heap) => worker.postMessage({ heap } satisfies HeapMessage));
  else socket.send(data);
};
worker.onerror = (event) => report("page_error", `worker: ${event.message || "could not be started"} (${event.filename}:${event.lineno})`);
window.onerror = (message) => report("page_error", `page: ${String(message)}`);
window.onunhandledrejection = (event) => report("page_error", `page: ${String(event.reason)}`);

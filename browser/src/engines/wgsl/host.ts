// Answers the requests of the language-model engine; a broken device ends whichever is waiting.
import { nowNs } from "../../clock";
import { CAUSE_WAIT_MS } from "../../devices";
import { ClassifiedError } from "../../failure";
import type { HostTensors } from "../../frames";
import type { LanguageModelRequest, Reply } from "../../protocol";
import { runKernel } from "./kernel";
import { timeCopies } from "./memory";
import { LanguageModel } from "./model";

interface Loaded {
  model: LanguageModel;
  brokenBy: unknown;
}

const models = new Map<string, Loaded>(); // by the names that Python gave them; each has a device of its own

export async function answerLanguageModel(request: LanguageModelRequest, tensors: HostTensors): Promise<[Reply, HostTensors?]> {
  const loaded = models.get(request.model);
  if (!loaded || request.type === "LoadLanguageModel" || request.type === "CloseLanguageModel") return answer(request, tensors);
  if (loaded.brokenBy) throw loaded.brokenBy;
  const { broken } = loaded.model.device;
  try {
    return await Promise.race([answer(request, tensors), broken]);
  } catch (error) {
    await Promise.race([broken, new Promise((resolve) => setTimeout(resolve, CAUSE_WAIT_MS))]);
    throw error;
  }
}

function close(name: string): void {
  models.get(name)?.model.close();
  models.delete(name);
}

async function answer(request: LanguageModelRequest, tensors: HostTensors): Promise<[Reply, HostTensors?]> {
  const { id } = request;
  const facts = (values: Record<string, unknown>): [Reply] => [{ type: "Facts", id, facts: values }];
  const current = () => {
    const loaded = models.get(request.model);
    if (!loaded) throw new ClassifiedError("page_error", "No language model was loaded.");
    return loaded.model;
  };
  switch (request.type) {
    case "LoadLanguageModel": {
      close(request.model);
      const loaded: Loaded = { model: await LanguageModel.open(request), brokenBy: null };
      models.set(request.model, loaded);
      loaded.model.device.broken.catch((error: unknown) => (loaded.brokenBy = error));
      return facts(loaded.model.inspect());
    }
    case "LoadWeights": {
      const start = nowNs();
      await current().loadFile(request.file);
      return [{ type: "Timed", id, ns: nowNs() - start }];
    }
    case "CompileLanguageModel": {
      const start = nowNs();
      await current().ready();
      return facts({ ...current().inspect(), waited_ns: nowNs() - start });
    }
    case "CloseLanguageModel":
      close(request.model);
      return [{ type: "Done", id }];
    case "GenerateTokens":
      return facts(current().generate(request));
    case "NextTokens":
      return [await current().next(id)];
    case "NextOfBatch":
      return [await current().nextOfBatch(id)];
    case "CancelTokens":
      await current().cancel(request.sequence);
      return [{ type: "Done", id }];
    case "TruncateCache":
      await current().cancel();
      return facts({ length: current().truncate(request.length) });
    case "ComputeLogits":
      return [facts({})[0], await current().logits(request.tokens, request.path)];
    case "InspectLanguageModel":
      return facts(current().inspect());
    case "TimeCopies":
      return [{ type: "Timed", id, ns: await timeCopies(current().memory, request.bytes, request.repeats) }];
    case "ProfileDecoding":
      return facts(await current().profile(request));
    case "RunKernel":
      return [facts({})[0], await runKernel(request, tensors)];
  }
}

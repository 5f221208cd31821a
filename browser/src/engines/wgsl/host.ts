// Answers the requests of the language-model engine; a broken device ends whichever is waiting.
import { nowNs } from "../../clock";
import { CAUSE_WAIT_MS } from "../../devices";
import { ClassifiedError } from "../../failure";
import type { HostTensors } from "../../frames";
import type { LanguageModelRequest, Reply } from "../../protocol";
import { runKernel } from "./kernel";
import { timeCopies } from "./memory";
import { LanguageModel } from "./model";

let model: LanguageModel | null = null;
let brokenBy: unknown = null;

function current(): LanguageModel {
  if (!model) throw new ClassifiedError("page_error", "No language model was loaded.");
  return model;
}

export async function answerLanguageModel(request: LanguageModelRequest, tensors: HostTensors): Promise<[Reply, HostTensors?]> {
  if (request.type === "LoadLanguageModel" || !model) return answer(request, tensors);
  if (brokenBy) throw brokenBy;
  const { broken } = model.device;
  try {
    return await Promise.race([answer(request, tensors), broken]);
  } catch (error) {
    await Promise.race([broken, new Promise((resolve) => setTimeout(resolve, CAUSE_WAIT_MS))]);
    throw error;
  }
}

async function answer(request: LanguageModelRequest, tensors: HostTensors): Promise<[Reply, HostTensors?]> {
  const { id } = request;
  const facts = (values: Record<string, unknown>): [Reply] => [{ type: "Facts", id, facts: values }];
  switch (request.type) {
    case "LoadLanguageModel": {
      model?.close();
      brokenBy = null;
      const loaded = await LanguageModel.open(request);
      model = loaded;
      loaded.device.broken.catch((error: unknown) => {
        if (model === loaded) brokenBy = error;
      });
      return facts(loaded.inspect());
    }
    case "LoadWeights": {
      const start = nowNs();
      await current().loadFile(request.file);
      return [{ type: "Timed", id, ns: nowNs() - start }];
    }
    case "CompileLanguageModel":
      await current().ready();
      return facts(current().inspect());
    case "GenerateTokens":
      return facts({ reused_tokens: current().generate(request) });
    case "NextTokens":
      return [await current().next(id)];
    case "CancelTokens":
      await current().cancel();
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
    case "RunKernel":
      return [facts({})[0], await runKernel(request, tensors)];
  }
}

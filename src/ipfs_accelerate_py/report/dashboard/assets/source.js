/** Where answers come from: the server, or what stands in the file. Both by the same addresses. */
const embedded = document.getElementById("data");
const answers = embedded ? JSON.parse(embedded.textContent) : null;

export const isFile = answers !== null;

export async function ask(address, parameters = []) {
  if (isFile) {
    if (!(address in answers)) throw new Error(`This file does not hold ${address}: open the dashboard on the store with ipfs-accelerate dashboard.`);
    return answers[address];
  }
  let response;
  try {
    response = await fetch(withQuery(address, parameters));
  } catch {
    throw new Error("The dashboard's server does not answer: start it again with ipfs-accelerate dashboard.");
  }
  if (response.status === 500) throw new Error("The dashboard's server met a defect: its terminal has the traceback.");
  const told = await response.json();
  if (!response.ok) throw new Error(told.error);
  return told;
}

export function withQuery(address, parameters) {
  const query = new URLSearchParams(parameters).toString();
  return query ? `${address}?${query}` : address;
}

export function parametersOf(state) {
  const pairs = Object.entries(state.facets).flatMap(([name, values]) => values.map((value) => [name, value]));
  return state.search ? [...pairs, ["search", state.search]] : pairs;
}

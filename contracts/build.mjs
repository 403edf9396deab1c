// Compiles the contracts with fixed settings and writes build/<name>.json.
// The same sources and packages give the same bytes anywhere: no metadata hash, no absolute paths.
// `node contracts/build.mjs [--out FOLDER]`; tests compare a fresh FOLDER with the committed build/.
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const solc = createRequire(import.meta.url)("solc");
const names = ["AIT", "DepositForwarder", "Settlement"];
const settings = {
  optimizer: { enabled: true, runs: 200 },
  evmVersion: "cancun",
  metadata: { appendCBOR: false, bytecodeHash: "none" },
  outputSelection: { "*": { "*": ["abi", "evm.bytecode.object", "evm.deployedBytecode.object"] } },
};

function read(path) {
  const root = path.startsWith("@openzeppelin/") ? join(here, "..", "node_modules") : join(here, "..");
  try {
    return { contents: readFileSync(join(root, path), "utf8") };
  } catch (error) {
    return { error: error.message };
  }
}

function compile() {
  const sources = Object.fromEntries(
    names.map((name) => [`contracts/${name}.sol`, { content: read(`contracts/${name}.sol`).contents }]),
  );
  const input = { language: "Solidity", sources, settings };
  const output = JSON.parse(solc.compile(JSON.stringify(input), { import: read }));
  // Warnings about our own sources stop the build too; those about OpenZeppelin's are theirs.
  const complaints = (output.errors ?? [])
    .filter((error) => error.severity === "error" || !error.sourceLocation?.file.startsWith("@"))
    .map((error) => error.formattedMessage);
  if (complaints.length > 0) {
    throw new Error(complaints.join("\n"));
  }
  return output.contracts;
}

function artifact(name, compiled) {
  return {
    contract: name,
    compiler: solc.version(),
    settings: { optimizer: settings.optimizer, evmVersion: settings.evmVersion, metadata: settings.metadata },
    abi: compiled.abi,
    bytecode: `0x${compiled.evm.bytecode.object}`,
    deployed_bytes: compiled.evm.deployedBytecode.object.length / 2,
  };
}

const flag = process.argv.indexOf("--out");
const out = flag > 0 ? process.argv[flag + 1] : join(here, "build");
mkdirSync(out, { recursive: true });
const contracts = compile();
for (const name of names) {
  const built = artifact(name, contracts[`contracts/${name}.sol`][name]);
  writeFileSync(join(out, `${name}.json`), `${JSON.stringify(built, null, 1)}\n`);
  console.log(`${name}: ${built.deployed_bytes} bytes`);
}

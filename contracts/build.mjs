// Compiles the contracts with fixed settings and writes build/<name>.json.
// The same sources and packages give the same bytes anywhere: no metadata hash, no absolute paths.
// `node contracts/build.mjs [--out FOLDER] [--source FILE]`; tests compare a fresh FOLDER with the committed
// build/, and compile a FILE of their own (its contract has the file's name) in place of the product's.
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const solc = createRequire(import.meta.url)("solc");
const option = (name) => (process.argv.includes(name) ? process.argv[process.argv.indexOf(name) + 1] : null);
const paths = option("--source")
  ? [option("--source")]
  : ["AIT", "DepositForwarder", "Settlement"].map((name) => `contracts/${name}.sol`);
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
    paths.map((path) => [path, { content: read(path).contents }]),
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

const out = option("--out") ?? join(here, "build");
mkdirSync(out, { recursive: true });
const contracts = compile();
for (const path of paths) {
  const name = basename(path, ".sol");
  const built = artifact(name, contracts[path][name]);
  writeFileSync(join(out, `${name}.json`), `${JSON.stringify(built, null, 1)}\n`);
  console.log(`${name}: ${built.deployed_bytes} bytes`);
}

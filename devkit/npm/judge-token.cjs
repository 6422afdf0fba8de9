// Prints the HTTP status of each operation that Azure's own client tries with a container's SAS token:
//   node judge-token.cjs CONTAINER_URL TOKEN  ->  {"put":201,"overwrite":201,"get":200,"delete":403,"list":403}
const { AnonymousCredential, ContainerClient } = require("@azure/storage-blob");

const [containerUrl, token] = process.argv.slice(2);
const options = { retryOptions: { maxTries: 1 } };
const container = new ContainerClient(`${containerUrl}?${token}`, new AnonymousCredential(), options);
const blob = container.getBlockBlobClient(`judged-${process.pid}.txt`);

async function status(call) {
  try {
    return (await call())._response.status;
  } catch (error) {
    if (error.statusCode === undefined) throw error;
    return error.statusCode;
  }
}

async function main() {
  const verdict = {
    put: await status(() => blob.upload("x", 1)),
    overwrite: await status(() => blob.upload("y", 1)),
    get: await status(() => blob.download()),
    delete: await status(() => blob.delete()),
    list: await status(async () => (await container.listBlobsFlat().byPage().next()).value),
  };
  console.log(JSON.stringify(verdict));
}

main().then(
  () => process.exit(0),
  (error) => {
    console.error(error.name, error.code);
    process.exit(1);
  },
);

// Reads KQL files with Kusto's own language service, over the tables of Application Insights, and prints one JSON object:
//   node check.cjs FILE…  ->  {"FILE": {"problems": ["…"], "columns": ["timestamp: datetime"]}}
const fs = require("node:fs");
require("@kusto/language-service-next/bridge.min.js");
require("@kusto/language-service-next/Kusto.Language.Bridge.min.js");

const { GlobalState, KustoCode, Symbols } = globalThis.Kusto.Language;

// https://learn.microsoft.com/azure/azure-monitor/app/data-model-complete; the columns that queries use.
const TABLES = {
  requests:
    "(timestamp: datetime, id: string, name: string, success: string, resultCode: string, duration: real, operation_Id: string, cloud_RoleInstance: string, customDimensions: dynamic)",
  traces:
    "(timestamp: datetime, message: string, severityLevel: int, operation_Id: string, cloud_RoleInstance: string, customDimensions: dynamic)",
};

// The language service is translated from C#; its lists are no arrays.
function array(list) {
  return Array.from({ length: list?.Count ?? 0 }, (_, index) => list.getItem(index));
}

const tables = Object.entries(TABLES).map(([name, columns]) => Symbols.TableSymbol.From(columns).WithName(name));
const globals = GlobalState.Default.WithDatabase(new Symbols.DatabaseSymbol.ctor("insights", tables));
const answer = {};
for (const file of process.argv.slice(2)) {
  const query = KustoCode.ParseAndAnalyze(fs.readFileSync(file, "utf8"), globals);
  answer[file] = {
    problems: array(query.GetDiagnostics()).map((found) => `${found.Message} (at ${found.Start})`),
    columns: array(query.ResultType?.Columns).map((column) => `${column.Name}: ${column.Type.Name}`),
  };
}
console.log(JSON.stringify(answer));

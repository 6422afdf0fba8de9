//! The facts of `infra/` that no schema knows: roles, keys, settings, names and how the files fit together.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::bicep::{File, files};

/// The built-in roles: <https://learn.microsoft.com/azure/role-based-access-control/built-in-roles>.
const ROLES: [(&str, &str); 8] = [
    ("cognitiveServicesOpenAiUser", "5e0bd9bd-7b93-4f28-af87-19fc36ad61bd"),
    ("keyVaultSecretsUser", "4633458b-17de-408a-b874-0445c86b69e6"),
    ("monitoringMetricsPublisher", "3913510d-42f4-4e42-8a64-420c390055eb"),
    ("reader", "acdd72a7-3385-48ef-bd42-f606fba81ae7"),
    ("storageBlobDataOwner", "b7e6dc6d-f1e8-4753-8033-0f276bb0955b"),
    ("storageQueueDataContributor", "974c5e8b-45b9-4653-ba55-5f855dd0fb88"),
    ("storageTableDataContributor", "0a9a7e1f-b9d0-4cc4-a60d-0319b160aaa3"),
    ("websiteContributor", "de139f84-1756-47ae-9be6-808fbbe84772"),
];

/// What each type was compared with, by the version of its interface: docs/deploy.md says how.
const VERSIONS: [(&str, &str); 25] = [
    ("Microsoft.Authorization/roleAssignments", "2022-04-01"),
    ("Microsoft.CognitiveServices/accounts", "2025-06-01"),
    ("Microsoft.CognitiveServices/accounts/deployments", "2025-06-01"),
    ("Microsoft.Consumption/budgets", "2024-08-01"),
    ("Microsoft.Insights/actionGroups", "2023-01-01"),
    ("Microsoft.Insights/components", "2020-02-02"),
    ("Microsoft.Insights/scheduledQueryRules", "2023-12-01"),
    ("Microsoft.Insights/workbooks", "2023-06-01"),
    ("Microsoft.KeyVault/vaults", "2024-11-01"),
    ("Microsoft.KeyVault/vaults/secrets", "2024-11-01"),
    ("Microsoft.ManagedIdentity/userAssignedIdentities", "2024-11-30"),
    ("Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials", "2024-11-30"),
    ("Microsoft.OperationalInsights/workspaces", "2025-02-01"),
    ("Microsoft.Resources/resourceGroups", "2024-11-01"),
    ("Microsoft.Storage/storageAccounts", "2025-01-01"),
    ("Microsoft.Storage/storageAccounts/blobServices", "2025-01-01"),
    ("Microsoft.Storage/storageAccounts/blobServices/containers", "2025-01-01"),
    ("Microsoft.Storage/storageAccounts/queueServices", "2025-01-01"),
    ("Microsoft.Storage/storageAccounts/queueServices/queues", "2025-01-01"),
    ("Microsoft.Storage/storageAccounts/tableServices", "2025-01-01"),
    ("Microsoft.Storage/storageAccounts/tableServices/tables", "2025-01-01"),
    ("Microsoft.Web/serverfarms", "2024-11-01"),
    ("Microsoft.Web/sites", "2024-11-01"),
    ("Microsoft.Web/sites/basicPublishingCredentialsPolicies", "2024-11-01"),
    ("Microsoft.Web/sites/config", "2024-11-01"),
];

/// App settings that the Functions host or the platform reads.
const SETTINGS_OF_THE_HOST: [&str; 9] = [
    "APPLICATIONINSIGHTS_AUTHENTICATION_STRING",
    "APPLICATIONINSIGHTS_CONNECTION_STRING",
    "AzureWebJobsDisableHomepage",
    "AzureWebJobsStorage__blobServiceUri",
    "AzureWebJobsStorage__clientId",
    "AzureWebJobsStorage__credential",
    "AzureWebJobsStorage__queueServiceUri",
    "AzureWebJobsStorage__tableServiceUri",
    "OVERRIDE_USE_MI_FIC_ASSERTION_CLIENTID",
];

/// App settings that Flex Consumption refuses or ignores, as beginnings of names:
/// <https://learn.microsoft.com/azure/azure-functions/functions-app-settings#flex-consumption-plan-deprecations>.
const REFUSED_BY_FLEX: [&str; 13] = [
    "ENABLE_ORYX_BUILD",
    "FUNCTIONS_EXTENSION_VERSION",
    "FUNCTIONS_WORKER_PROCESS_COUNT",
    "FUNCTIONS_WORKER_RUNTIME",
    "FUNCTIONS_MAX_HTTP_CONCURRENCY",
    "SCM_DO_BUILD_DURING_DEPLOYMENT",
    "TZ",
    "WEBSITE_CONTENT",
    "WEBSITE_MAX_DYNAMIC_APPLICATION_SCALE_OUT",
    "WEBSITE_NODE_DEFAULT_VERSION",
    "WEBSITE_RUN_FROM_PACKAGE",
    "WEBSITE_SKIP_CONTENTSHARE_VALIDATION",
    "WEBSITE_TIME_ZONE",
];

fn keys(value: &Value) -> BTreeSet<String> {
    value.as_object().unwrap_or_else(|| panic!("no object: {value}")).keys().cloned().collect()
}

/// The names in the first column of docs/settings.md.
fn documented_settings() -> BTreeSet<String> {
    let settings = crate::read("docs/settings.md");
    let rows = settings.lines().filter(|line| line.starts_with("| `"));
    let cells = rows.map(|row| row.split('|').nth(1).unwrap().to_owned()).collect::<Vec<_>>();
    cells.iter().flat_map(|cell| cell.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
}

/// The app settings of all files: those of each `settings` output and variable, and those of the app itself.
fn settings(files: &BTreeMap<String, File>) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for file in files.values() {
        for (name, value) in file.outputs.iter().chain(&file.variables) {
            if name.to_lowercase().ends_with("settings") {
                names.extend(keys(value));
            }
        }
    }
    let app = files["app"].resources.iter().find(|one| one.body["name"] == "appsettings").unwrap();
    names.extend(keys(&app.body["properties"]));
    names.extend(keys(&crate::json("infra/main.parameters.json")["parameters"]["settings"]["value"]));
    names
}

#[test]
fn each_app_setting_is_one_that_the_handler_or_the_host_reads() {
    let settings = settings(&files());
    let known = documented_settings();
    for name in &settings {
        let is_known = known.contains(name) || SETTINGS_OF_THE_HOST.contains(&name.as_str());
        assert!(is_known, "nobody reads the app setting {name}");
        assert!(!REFUSED_BY_FLEX.iter().any(|refused| name.starts_with(refused)), "Flex refuses {name}");
    }
    for wanted in SETTINGS_OF_THE_HOST.iter().chain(&["OPENAI_API_KEY", "OPENAI_AUTH", "ALLOWED_ORIGINS"]) {
        assert!(settings.contains(*wanted), "no app setting {wanted}");
    }
}

#[test]
fn the_app_runs_as_a_custom_handler_on_flex_with_its_own_identity() {
    let files = files();
    let app = &files["app"];
    assert_eq!(app.resource("Microsoft.Web/serverfarms")["sku"], json!({"name": "FC1", "tier": "FlexConsumption"}));
    assert_eq!(app.resource("Microsoft.Web/serverfarms")["properties"]["reserved"], true);
    let site = app.resource("Microsoft.Web/sites");
    assert_eq!(site["kind"], "functionapp,linux");
    assert_eq!(site["tags"]["azd-service-name"], "app");
    assert_eq!(site["identity"]["type"], "UserAssigned");
    assert_eq!(site["properties"]["httpsOnly"], true);
    assert_eq!(site["properties"]["keyVaultReferenceIdentity"], "identityId");
    let config = &app.variables["functionAppConfig"];
    assert_eq!(config["runtime"], json!({"name": "custom", "version": "1.0"}));
    assert_eq!(config["deployment"]["storage"]["authentication"]["type"], "UserAssignedIdentity");
    assert_eq!(config["scaleAndConcurrency"]["triggers"]["http"]["perInstanceConcurrency"], "perInstanceConcurrency");
    let expression = site["properties"]["functionAppConfig"].as_str().unwrap();
    assert!(
        expression.contains("functionAppConfig, { siteUpdateStrategy: { type: siteUpdateStrategy } }"),
        "{expression}"
    );
    let policies = app.resources.iter().filter(|one| one.kind.contains("/basicPublishingCredentialsPolicies@"));
    let policies: Vec<_> = policies.map(|one| (&one.body["name"], &one.body["properties"]["allow"])).collect();
    assert_eq!(policies, [(&json!("ftp"), &json!(false)), (&json!("scm"), &json!(false))]);
}

#[test]
fn with_sign_in_the_platform_tells_the_page_who_is_signed_in() {
    assert!(crate::read("client/visionary.js").contains("/.auth/me"));
    let app = File::read("infra/app.bicep");
    let sign_in = app.resources.iter().find(|one| one.body["name"] == "authsettingsV2").unwrap();
    assert_eq!(sign_in.body["properties"]["login"]["tokenStore"], json!({"enabled": true}));
}

#[test]
fn nothing_has_a_key_or_is_public() {
    let files = files();
    let account = &files["storage"].resource("Microsoft.Storage/storageAccounts")["properties"];
    assert_eq!(account["allowSharedKeyAccess"], false);
    assert_eq!(account["allowBlobPublicAccess"], false);
    assert_eq!(account["isLocalUserEnabled"], false);
    assert_eq!(account["supportsHttpsTrafficOnly"], true);
    assert_eq!(account["minimumTlsVersion"], "TLS1_2");
    let containers = files["storage"].resource("Microsoft.Storage/storageAccounts/blobServices/containers");
    assert_eq!(containers["properties"]["publicAccess"], "None");
    assert_eq!(files["monitoring"].resource("Microsoft.Insights/components")["properties"]["DisableLocalAuth"], true);
    let models = &files["openai"].resource("Microsoft.CognitiveServices/accounts")["properties"];
    assert_eq!((&models["disableLocalAuth"], &models["customSubDomainName"]), (&json!(true), &json!("name")));
    assert_eq!(files["keyvault"].resource("Microsoft.KeyVault/vaults")["properties"]["enableRbacAuthorization"], true);
    for file in files.values() {
        for reader in ["listKeys(", "listConnectionStrings(", "listAccountSas(", "getSecret(", "AccountKey"] {
            assert!(!file.text.contains(reader), "{} asks for a key: {reader}", file.path);
        }
    }
}

#[test]
fn each_role_is_the_built_in_one_and_goes_to_an_identity() {
    let mut roles = BTreeMap::new();
    for file in files().into_values() {
        let assignments: Vec<_> =
            file.resources.iter().filter(|one| one.kind.starts_with("Microsoft.Authorization/")).collect();
        let mut ungiven = BTreeSet::new();
        for (name, found) in file.variables.iter().filter(|(name, _)| name.to_lowercase().ends_with("roles")) {
            roles.extend(found.as_object().unwrap().clone());
            ungiven.insert(format!("items({name})"));
        }
        for assignment in assignments {
            let body = &assignment.body;
            assert!(ungiven.remove(body["for"].as_str().unwrap()), "{} gives {}", file.path, body["for"]);
            assert_eq!(body["properties"]["principalType"], "ServicePrincipal", "{}", file.path);
            let name = body["name"].as_str().unwrap();
            // Another identity or role is another assignment, not a change of this one.
            assert!(name.starts_with("guid(") && name.ends_with(", role.value)"), "{}: {name}", file.path);
            assert!(body["scope"].is_string(), "{} gives a role on one resource, not on the group", file.path);
        }
        assert!(ungiven.is_empty(), "{} does not give {ungiven:?}", file.path);
    }
    let wanted: BTreeMap<String, Value> = ROLES.iter().map(|(name, id)| ((*name).to_owned(), json!(id))).collect();
    assert_eq!(roles.into_iter().collect::<BTreeMap<_, _>>(), wanted);
}

#[test]
fn the_deployer_may_change_the_app_and_read_its_plan() {
    let deployer = File::read("infra/deployer.bicep");
    let given = deployer.resources.iter().filter(|one| one.kind.starts_with("Microsoft.Authorization/"));
    let given: BTreeSet<_> =
        given.map(|one| (one.body["scope"].as_str().unwrap(), one.body["for"].as_str().unwrap())).collect();
    assert_eq!(given, [("site", "items(roles)"), ("plan", "items(planRoles)")].into());
    assert_eq!(keys(&deployer.variables["roles"]), ["websiteContributor".to_owned()].into());
    assert_eq!(keys(&deployer.variables["planRoles"]), ["reader".to_owned()].into());
}

#[test]
fn each_type_has_the_version_that_it_was_compared_with() {
    let used: BTreeSet<String> =
        files().values().flat_map(|file| file.resources.iter().map(|one| one.kind.clone())).collect();
    let known: BTreeSet<String> = VERSIONS.iter().map(|(kind, version)| format!("{kind}@{version}")).collect();
    assert_eq!(used, known);
}

#[test]
fn the_modules_fit_together() {
    let files = files();
    let main = &files["main"];
    let mut used: BTreeSet<&str> = ["main"].into();
    for module in &main.modules {
        let name = module.kind.trim_end_matches(".bicep");
        let file = files.get(name).unwrap_or_else(|| panic!("main.bicep has a module {}", module.kind));
        assert!(used.insert(name), "{name} is used twice");
        let given = keys(&module.body["params"]);
        let known: BTreeSet<String> = file.parameters.keys().cloned().collect();
        let required: BTreeSet<String> =
            file.parameters.iter().filter(|(_, has_default)| !**has_default).map(|(name, _)| name.clone()).collect();
        assert!(given.is_subset(&known), "{name} has no parameter {:?}", given.difference(&known));
        assert!(required.is_subset(&given), "{name} needs {:?}", required.difference(&given));
        for access in [format!("{}.outputs.", module.name), format!("{}!.outputs.", module.name)] {
            for rest in main.text.split(&format!(" {access}")).skip(1) {
                let output = rest.split(|c: char| !c.is_alphanumeric()).next().unwrap();
                assert!(file.outputs.contains_key(output), "{name} has no output {output}");
            }
        }
    }
    assert_eq!(used, files.keys().map(String::as_str).collect(), "each file is a module of main.bicep");
    for file in files.values() {
        for path in file.arguments_of("loadTextContent") {
            assert!(devkit::root().join("infra").join(&path).is_file(), "{} loads {path}", file.path);
        }
    }
}

#[test]
fn azd_gives_each_parameter_that_main_needs() {
    let main = File::read("infra/main.bicep");
    let given = crate::json("infra/main.parameters.json")["parameters"].clone();
    for name in keys(&given) {
        assert!(main.parameters.contains_key(&name), "main.bicep has no parameter {name}");
    }
    for (name, _) in main.parameters.iter().filter(|(_, has_default)| !**has_default) {
        assert!(given.get(name).is_some(), "main.parameters.json has no {name}");
    }
    // azd leaves a parameter out when its variable is not set, so that the default of main.bicep counts.
    for (name, parameter) in given.as_object().unwrap() {
        let value = &parameter["value"];
        let is_variable = value.as_str().is_some_and(|text| text.starts_with("${") && text.ends_with('}'));
        assert!(is_variable || !value.is_string(), "{name} has a fixed value: {value}");
        assert!(!value.to_string().contains('='), "{name} has a default outside of main.bicep: {value}");
    }
    // The next `azd provision` reads what this one wrote.
    assert_eq!(given["budgetStart"]["value"], "${BUDGET_START}");
    // An empty value counts as not set, and a day is kept for a budget that exists only.
    assert_eq!(main.variables["budgetStartOrNow"], "empty(budgetStart) ? thisMonth : budgetStart");
    assert_eq!(main.outputs["BUDGET_START"], "empty(alertEmail) ? budgetStart : budgetStartOrNow");
}

#[test]
fn an_azure_openai_resource_that_exists_is_found_by_its_name_alone_and_called_at_its_own_address() {
    let files = files();
    let module = files["main"].modules.iter().find(|module| module.name == "azureOpenAi").unwrap();
    assert_eq!(
        module.body["scope"],
        "resourceGroup(empty(azureOpenAiName) || empty(azureOpenAiResourceGroup) ? group.name : azureOpenAiResourceGroup)"
    );
    // The endpoint ends with a slash.
    assert_eq!(files["openai"].outputs["settings"]["OPENAI_BASE_URL"], "${account.properties.endpoint}openai/v1/");
}

#[test]
fn storage_has_the_containers_queues_and_tables_of_the_handler() {
    let storage = File::read("infra/storage.bicep");
    let kind = |last: &str| storage.resource(&format!("Microsoft.Storage/storageAccounts/{last}"))["for"].clone();
    let mut queues = BTreeSet::new();
    for file in crate::function_files() {
        let function: Value = serde_json::from_str(&crate::read(file)).unwrap();
        queues.extend(function["bindings"][0]["queueName"].as_str().map(str::to_owned));
    }
    assert_eq!(kind("queueServices/queues"), list(&queues.iter().map(String::as_str).collect::<Vec<_>>()));
    let name = |path: &str| {
        let source = crate::read(path);
        source.split("TABLE: &str = \"").nth(1).unwrap().split('"').next().unwrap().to_owned()
    };
    let tables = [name("src/azure/table.rs"), name("src/gallery/index.rs")];
    assert_eq!(kind("tableServices/tables"), list(&tables.each_ref().map(String::as_str)));
    assert_eq!(kind("blobServices/containers"), "[imageContainer, '${imageContainer}-thumbnails', packageContainer]");
}

#[test]
fn each_query_of_a_chart_or_an_alert_is_valid_for_the_language_service_of_kusto() {
    let folder = tempfile::tempdir().unwrap();
    let mut used = BTreeSet::new();
    let mut written = vec![];
    for name in ["alerts", "workbook"] {
        let text = crate::read(format!("infra/{name}.bicep"));
        for rest in text.split("loadTextContent('../").skip(1) {
            let (path, rest) = rest.split_once("')").unwrap();
            // What the file adds to the query: `'${loadTextContent('…')}\n| where …'`.
            let added = rest.strip_prefix('}').map_or("", |rest| rest.split('\'').next().unwrap());
            let file = folder.path().join(format!("{name}-{}.kql", written.len()));
            std::fs::write(&file, crate::read(path) + &added.replace("\\n", "\n")).unwrap();
            used.insert(path.to_owned());
            written.push(file);
        }
    }
    // Each query of ops/ is in the workbook or an alert.
    assert_eq!(used, crate::files("ops", "kql"));

    let mut node = std::process::Command::new("node");
    node.arg("devkit/queries/check.cjs").env("NODE_PATH", devkit::npm::modules("queries").unwrap()).args(&written);
    let answer: Value = serde_json::from_str(&crate::succeeds(&mut node)).unwrap();
    for file in written {
        let query = std::fs::read_to_string(&file).unwrap();
        assert_eq!(answer[file.to_str().unwrap()]["problems"], json!([]), "{query}");
    }
}

/// A list of strings, as Bicep writes it.
fn list(names: &[&str]) -> Value {
    format!("[{}]", names.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ")).into()
}

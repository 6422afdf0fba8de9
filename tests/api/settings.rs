//! A wrong setting ends the process at its start with one line that names the setting, never its value.

use std::process::Command;

use visionary::config::Config;

use crate::harness::handler;

const REQUIRED: [(&str, &str); 2] = [("OPENAI_API_KEY", "key"), ("AzureWebJobsStorage", "UseDevelopmentStorage=true")];

/// The configuration of the required settings with these changes.
fn read(changes: &[(&str, &str)]) -> Result<Config, String> {
    let lookup = |name: &str| {
        let changed = changes.iter().find(|(known, _)| *known == name);
        changed.or(REQUIRED.iter().find(|(known, _)| *known == name)).map(|(_, value)| (*value).to_owned())
    };
    Config::from_vars(lookup).map_err(|error| error.to_string())
}

#[test]
fn each_wrong_setting_is_named() {
    let key = "AccountKey=c2VjcmV0LXZhbHVl";
    let cases: [(&[(&str, &str)], &str); 56] = [
        (&[("OPENAI_API_KEY", "")], "OPENAI_API_KEY is missing"),
        (&[("OPENAI_API_KEY", "secret-value\u{7f}")], "OPENAI_API_KEY is malformed"),
        (
            &[("OPENAI_API_KEY", "@Microsoft.KeyVault(secret-value)")],
            "OPENAI_API_KEY is an unresolved Key Vault reference",
        ),
        (&[("OPEN_AI_KEY", "secret-value")], "OPENAI_API_KEY and OPEN_AI_KEY contradict"),
        (
            &[("OPENAI_ORG_ID", "a"), ("OPEN_AI_ORGANIZATION", "secret-value")],
            "OPENAI_ORG_ID and OPEN_AI_ORGANIZATION contradict",
        ),
        (&[("OPENAI_BASE_URL", "secret-value")], "OPENAI_BASE_URL is malformed"),
        (&[("OPENAI_BASE_URL", "http://secret-value.example/v1")], "OPENAI_BASE_URL is malformed"),
        (&[("OPENAI_BASE_URL", "https://user:secret-value@x.example")], "OPENAI_BASE_URL is malformed"),
        (
            &[("OPENAI_IMAGE_WIRE", "secret-value")],
            "OPENAI_IMAGE_WIRE is malformed: expected auto, gpt-image or dall-e",
        ),
        (&[("OPENAI_TEXT_API", "secret-value")], "OPENAI_TEXT_API is malformed"),
        (&[("OPENAI_AUTH", "secret-value")], "OPENAI_AUTH is malformed: expected bearer, api-key or identity"),
        (&[("PROMPT_ENHANCEMENT", "secret-value")], "PROMPT_ENHANCEMENT is malformed: expected off, style or rewrite"),
        (&[("SUGGESTION_TIMEOUT_MS", "secret-value")], "SUGGESTION_TIMEOUT_MS is malformed"),
        (&[("OPENAI_TIMEOUT_SECONDS", "0")], "OPENAI_TIMEOUT_SECONDS is malformed"),
        (&[("OPENAI_TIMEOUT_SECONDS", "secret-value")], "OPENAI_TIMEOUT_SECONDS is malformed"),
        (&[("OPENAI_PROJECT_ID", "secret value")], "OPENAI_PROJECT_ID is malformed"),
        (&[("DAILY_IMAGE_QUOTA", "secret-value")], "DAILY_IMAGE_QUOTA is malformed"),
        (&[("DAILY_IMAGE_QUOTA", "-1")], "DAILY_IMAGE_QUOTA is malformed"),
        (&[("DAILY_BUDGET_USD", "secret-value")], "DAILY_BUDGET_USD is malformed"),
        (&[("DAILY_BUDGET_USD", "NaN")], "DAILY_BUDGET_USD is malformed"),
        (&[("DAILY_CALLER_USD", "secret-value")], "DAILY_CALLER_USD is malformed"),
        (&[("MAX_IMAGE_USD", "-0.1")], "MAX_IMAGE_USD is malformed"),
        (&[("DAILY_REFUSALS", "secret-value")], "DAILY_REFUSALS is malformed"),
        (&[("DAILY_JOBS", "1.5")], "DAILY_JOBS is malformed"),
        (&[("IMAGE_PRICES", "secret-value")], "IMAGE_PRICES is malformed"),
        (&[("IMAGE_PRICES", r#"{"secret-value": {"image": -1}}"#)], "IMAGE_PRICES is malformed"),
        (&[("IMAGE_PRICES", r#"{"secret-value": {"imageOutput": 1}}"#)], "IMAGE_PRICES is malformed"),
        (&[("LISTING_LIMIT", "secret-value")], "LISTING_LIMIT is malformed"),
        (&[("OTEL_METRIC_EXPORT_INTERVAL", "0")], "OTEL_METRIC_EXPORT_INTERVAL is malformed"),
        (&[("RECONCILE_HOURS", "1.5")], "RECONCILE_HOURS is malformed"),
        (&[("WEB_PAGE", "secret-value")], "WEB_PAGE is malformed: expected on or off"),
        (&[("ALLOWED_ORIGINS", "secret-value")], "ALLOWED_ORIGINS is malformed"),
        (&[("ALLOWED_ORIGINS", "https://secret-value.example/")], "ALLOWED_ORIGINS is malformed"),
        (&[("ALLOWED_ORIGINS", "https://secret-value.example:443")], "ALLOWED_ORIGINS is malformed"),
        (&[("ALLOWED_ORIGINS", "https://a.example,*")], "ALLOWED_ORIGINS is malformed"),
        (&[("QUOTA_USER_HEADER", "secret value")], "QUOTA_USER_HEADER is malformed"),
        (&[("MODERATION", "secret-value")], "MODERATION is malformed"),
        (&[("AzureWebJobsStorage", "")], "AzureWebJobsStorage is missing"),
        (&[("AzureWebJobsStorage", "secret-value")], "AzureWebJobsStorage is malformed"),
        (&[("AzureWebJobsStorage", "AccountName=abc")], "AzureWebJobsStorage is malformed"),
        (&[("AzureWebJobsStorage", "AccountName=abc;AccountKey=secret-value!")], "AzureWebJobsStorage is malformed"),
        (&[("AzureWebJobsStorage", "AccountName=NO;AccountKey=c2VjcmV0")], "AzureWebJobsStorage is malformed"),
        (
            &[("AzureWebJobsStorage", &format!("AccountName=abc;{key};BlobEndpoint=http://secret-value.example"))],
            "AzureWebJobsStorage is malformed",
        ),
        (&[("AzureWebJobsStorage", "@Microsoft.KeyVault(secret-value)")], "AzureWebJobsStorage is an unresolved"),
        (&[("accountName", "abc")], "accountKey is missing"),
        (&[("accountKey", "c2VjcmV0LXZhbHVl")], "accountName is missing"),
        (&[("accountName", "Secret-Value"), ("accountKey", "c2VjcmV0")], "accountName is malformed"),
        (&[("accountName", "abc"), ("accountKey", "secret-value!")], "accountKey is malformed"),
        (&[("IMAGE_CONTAINER", "Secret_Value")], "IMAGE_CONTAINER is malformed"),
        (&[("IMAGE_CONTAINER", &"a".repeat(53))], "IMAGE_CONTAINER is malformed"),
        (&[("SAS_MINUTES", "0")], "SAS_MINUTES is malformed"),
        (&[("SAS_MINUTES", "20000")], "SAS_MINUTES is malformed"),
        (&[("SAS_PERMISSIONS", "secret-value")], "SAS_PERMISSIONS is malformed"),
        (&[("SAS_PERMISSIONS", "rr")], "SAS_PERMISSIONS is malformed"),
        (&[("FUNCTIONS_CUSTOMHANDLER_PORT", "secret-value")], "FUNCTIONS_CUSTOMHANDLER_PORT is malformed"),
        (&[("RUST_LOG", "@Microsoft.KeyVault(secret-value)")], "RUST_LOG is an unresolved"),
    ];

    for (changes, wanted) in cases {
        let error = read(changes).map(|_| ()).expect_err(wanted);
        assert!(error.starts_with(wanted), "{error}");
        assert!(!error.contains("secret-value") && !error.contains('\n'), "{error}");
    }
}

#[test]
fn the_names_of_the_original_app_are_accepted() {
    let original = read(&[
        ("OPENAI_API_KEY", ""),
        ("OPEN_AI_KEY", "k"),
        ("OPEN_AI_ORGANIZATION", "org"),
        ("accountName", "abc"),
        ("accountKey", "c2VjcmV0"),
    ]);
    let original = original.unwrap();
    assert_eq!(original.openai.organization.as_deref(), Some("org"));
    assert_eq!(original.storage.blob_endpoint.as_str(), "https://abc.blob.core.windows.net/");
    let same_twice =
        [("OPENAI_API_KEY", "k"), ("OPEN_AI_KEY", "k"), ("OPENAI_ORG_ID", "o"), ("OPEN_AI_ORGANIZATION", "o")];
    assert!(read(&same_twice).is_ok());
}

#[test]
fn each_form_of_connection_string_is_accepted() {
    for (connection_string, endpoint) in [
        ("UseDevelopmentStorage=true", "http://127.0.0.1:10000/devstoreaccount1"),
        ("AccountName=abc;AccountKey=c2VjcmV0", "https://abc.blob.core.windows.net/"),
        (
            "DefaultEndpointsProtocol=https;AccountName=abc;AccountKey=c2VjcmV0;EndpointSuffix=core.chinacloudapi.cn;",
            "https://abc.blob.core.chinacloudapi.cn/",
        ),
        (
            "accountname=abc; accountkey=c2VjcmV0==; blobendpoint=https://10.0.0.7:8443/abc/",
            "https://10.0.0.7:8443/abc",
        ),
    ] {
        let connection_string = connection_string.replace("c2VjcmV0==", "c2VjcmV0");
        let config = read(&[("AzureWebJobsStorage", &connection_string)]).unwrap();
        assert_eq!(config.storage.blob_endpoint.as_str(), endpoint);
    }
}

#[test]
fn printed_settings_show_no_secret() {
    let config = read(&[("OPENAI_API_KEY", "sk-secret"), ("accountName", "abc"), ("accountKey", "c2VjcmV0")]).unwrap();
    let printed = format!("{config:?}");
    assert!(!printed.contains("sk-secret") && !printed.contains("c2VjcmV0"), "{printed}");
}

#[test]
fn a_wrong_setting_ends_the_process_with_exit_code_1_and_one_line() {
    for (name, value, wanted) in [
        ("OPENAI_API_KEY", "", "OPENAI_API_KEY is missing"),
        ("accountKey", "secret-value", "accountName is missing"),
        ("RUST_LOG", "secret-value==,", "RUST_LOG is malformed"),
    ] {
        let mut command = Command::new(handler());
        command.env_clear().envs(REQUIRED).env("FUNCTIONS_CUSTOMHANDLER_PORT", "0").env(name, value);

        let output = command.output().expect("the handler starts");

        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.starts_with(wanted) && error.lines().count() == 1, "{error}");
        assert!(!error.contains("secret-value") && output.stdout.is_empty(), "{error}");
    }
}

#[test]
fn a_port_in_use_ends_the_process_with_exit_code_1() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let mut command = Command::new(handler());
    command.env_clear().envs(REQUIRED).env("FUNCTIONS_CUSTOMHANDLER_PORT", &port);

    let output = command.output().expect("the handler starts");

    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("FUNCTIONS_CUSTOMHANDLER_PORT"));
}

#[cfg(not(feature = "otlp"))]
#[test]
fn a_handler_without_the_feature_ignores_a_collector_and_says_so() {
    let collector = ("OTEL_EXPORTER_OTLP_ENDPOINT", "not for this handler:4317");
    let ignored = |changes: &[(&str, &str)]| -> Vec<&str> {
        read(changes).unwrap().ignored.into_iter().map(|ignored| ignored.name).collect()
    };
    assert_eq!(ignored(&[collector]), ["OTEL_EXPORTER_OTLP_ENDPOINT"]);
    assert_eq!(ignored(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "x")]), ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"]);
    assert_eq!(ignored(&[collector, ("OTEL_SDK_DISABLED", "true")]), [""; 0]);
    assert_eq!(ignored(&[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")]), [""; 0]);
}

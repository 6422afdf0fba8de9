//! Words in the messages of gateways, which replace the provider's code by the status (LiteLLM 1.106).

pub(super) const REFUSED: [&str; 7] = [
    "content_policy_violation",
    "ContentPolicyViolationError",
    "content management policy",
    "content_filter",
    "moderation_blocked",
    "rejected by the safety system",
    "rejected as a result of our safety system",
];
pub(super) const OUT_OF_CREDIT: [&str; 6] = [
    "Budget has been exceeded",
    "crossed budget",
    "exceeded your current quota",
    "Billing hard limit has been reached",
    "billing_hard_limit_reached",
    "insufficient_quota",
];
pub(super) const MODEL_GONE: [&str; 1] = ["Invalid model name"];
pub(super) const DENIED: [&str; 1] = ["No connected db"];
/// OpenAI's own words, without a code.
pub(super) const ACCESS: [&str; 2] = ["organization must be verified", "does not have access to"];
pub(super) const REASONING: [&str; 2] = ["reasoning.effort", "reasoning_effort"];

// The key of OpenAI, in a Key Vault that only the identity of the app may read.
param location string
param tags object
param token string
param principalId string
@secure()
param openAiApiKey string

// https://learn.microsoft.com/azure/role-based-access-control/built-in-roles/security
var roles = {
  keyVaultSecretsUser: '4633458b-17de-408a-b874-0445c86b69e6'
}
var secretName = 'openai-api-key'

resource vault 'Microsoft.KeyVault/vaults@2024-11-01' = {
  name: 'kv-${token}'
  location: location
  tags: tags
  properties: {
    tenantId: tenant().tenantId
    sku: {
      family: 'A'
      name: 'standard'
    }
    enableRbacAuthorization: true
    softDeleteRetentionInDays: 7
  }
}

resource secret 'Microsoft.KeyVault/vaults/secrets@2024-11-01' = if (!empty(openAiApiKey)) {
  parent: vault
  name: secretName
  properties: { value: openAiApiKey }
}

resource assignments 'Microsoft.Authorization/roleAssignments@2022-04-01' = [for role in items(roles): {
  scope: vault
  name: guid(vault.id, principalId, role.value)
  properties: {
    principalId: principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', role.value)
  }
}]

output settings object = {
  OPENAI_API_KEY: '@Microsoft.KeyVault(VaultName=${vault.name};SecretName=${secretName})'
}

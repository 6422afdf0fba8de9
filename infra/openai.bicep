// Azure OpenAI without a key: the identity of the app may call the models. A resource that exists gets the role only.
param location string
param tags object
param name string
param isNew bool
param principalId string
param imageModel string
param textModel string

// https://learn.microsoft.com/azure/role-based-access-control/built-in-roles/ai-machine-learning
var roles = {
  cognitiveServicesOpenAiUser: '5e0bd9bd-7b93-4f28-af87-19fc36ad61bd'
}

resource created 'Microsoft.CognitiveServices/accounts@2025-06-01' = if (isNew) {
  name: name
  location: location
  tags: tags
  kind: 'OpenAI'
  sku: { name: 'S0' }
  properties: {
    // A token of the identity is accepted only at a subdomain of the resource's own.
    customSubDomainName: name
    disableLocalAuth: true
    publicNetworkAccess: 'Enabled'
  }
}

// Azure refuses two deployments at the same time.
@batchSize(1)
resource deployments 'Microsoft.CognitiveServices/accounts/deployments@2025-06-01' = [for model in [imageModel, textModel]: if (isNew) {
  parent: created
  name: model
  sku: {
    name: 'GlobalStandard'
    capacity: model == imageModel ? 1 : 10
  }
  properties: {
    model: {
      format: 'OpenAI'
      name: model
    }
  }
}]

resource account 'Microsoft.CognitiveServices/accounts@2025-06-01' existing = {
  name: name
}

resource assignments 'Microsoft.Authorization/roleAssignments@2022-04-01' = [for role in items(roles): {
  scope: account
  name: guid(account.id, principalId, role.value)
  properties: {
    principalId: principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', role.value)
  }
  dependsOn: [created]
}]

output settings object = {
  OPENAI_AUTH: 'identity'
  // The subdomain of a resource that exists may differ from its name.
  OPENAI_BASE_URL: '${account.properties.endpoint}openai/v1/'
  OPENAI_IMAGE_MODEL: imageModel
  OPENAI_IMAGE_WIRE: 'gpt-image'
  OPENAI_TEXT_MODEL: textModel
}

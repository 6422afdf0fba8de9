// All resources of one environment, in a resource group of its own. `azd up` reads the parameters from
// main.parameters.json. docs/deploy.md says what each parameter is for, and what is not tried on Azure yet.
targetScope = 'subscription'

@description('The name of the environment, part of the name of the resource group.')
@minLength(1)
@maxLength(60)
param environmentName string

@description('The region of all resources. It must offer Flex Consumption.')
@minLength(1)
param location string

@description('Who draws: OpenAI with a key in a Key Vault, or Azure OpenAI with the identity of the app and no key at all.')
@allowed(['openai', 'azure'])
param provider string = 'openai'

@description('The key of OpenAI. Empty keeps the key that is in the Key Vault.')
@secure()
param openAiApiKey string = ''

@description('With the provider azure: an Azure OpenAI resource that exists. Empty creates one.')
param azureOpenAiName string = ''

@description('The resource group of azureOpenAiName. Empty is the group of the app.')
param azureOpenAiResourceGroup string = ''

@description('The image model of Azure OpenAI. A resource that exists must have a deployment of this name.')
param azureImageModel string = 'gpt-image-1.5'

@description('The text model of Azure OpenAI. A resource that exists must have a deployment of this name.')
param azureTextModel string = 'gpt-4.1-mini'

@description('App settings of docs/settings.md, by name.')
param settings object = {}

@description('Origins of front ends on other sites, such as https://app.contoso.com.')
param allowedOrigins string[] = []

@description('The memory of an instance in MB.')
@allowed([512, 2048, 4096])
param instanceMemoryMB int = 2048

@description('The most instances that may run.')
@minValue(40)
@maxValue(1000)
param maximumInstanceCount int = 40

@description('The HTTP requests of one instance. The handler limits the images itself; waiting requests and event streams are cheap.')
@minValue(1)
@maxValue(1000)
param perInstanceConcurrency int = 100

@description('Instances that always run for HTTP. They cost money while the app is idle.')
@minValue(0)
param alwaysReadyInstances int = 0

@description('RollingUpdate lets requests end when a new version is deployed. It is a preview.')
@allowed(['Recreate', 'RollingUpdate'])
param siteUpdateStrategy string = 'Recreate'

@description('The client id of an app registration. With it users sign in with Microsoft Entra ID.')
param signInClientId string = ''

@description('Where alerts and the budget are reported. Empty creates neither.')
param alertEmail string = ''

@description('The monthly budget of the resource group, in the currency of the subscription. It reports, and stops nothing.')
@minValue(1)
param monthlyBudget int = 50

@description('The first day of the budget. azd keeps it, because Azure refuses another one later. Empty is thisMonth.')
param budgetStart string = ''

@description('owner/name of a GitHub repository whose workflow may deploy the app. Empty trusts none.')
param githubRepository string = ''

@description('The environment of that repository in which the workflow runs.')
param githubEnvironment string = 'production'

@description('Not to be set: the first day of this month.')
param thisMonth string = utcNow('yyyy-MM-01')

var token = toLower(uniqueString(subscription().id, environmentName, location))
var tags = { 'azd-env-name': environmentName }
var budgetStartOrNow = empty(budgetStart) ? thisMonth : budgetStart

resource group 'Microsoft.Resources/resourceGroups@2024-11-01' = {
  name: 'rg-${environmentName}'
  location: location
  tags: tags
}

module identity 'identity.bicep' = {
  scope: group
  params: {
    location: location
    tags: tags
    token: token
  }
}

module monitoring 'monitoring.bicep' = {
  scope: group
  params: {
    location: location
    tags: tags
    token: token
    principalId: identity.outputs.principalId
  }
}

module storage 'storage.bicep' = {
  scope: group
  params: {
    location: location
    tags: tags
    token: token
    principalId: identity.outputs.principalId
    imageContainer: settings.?IMAGE_CONTAINER ?? 'images'
    allowedOrigins: allowedOrigins
  }
}

module keyVault 'keyvault.bicep' = if (provider == 'openai') {
  scope: group
  params: {
    location: location
    tags: tags
    token: token
    principalId: identity.outputs.principalId
    openAiApiKey: openAiApiKey
  }
}

module azureOpenAi 'openai.bicep' = if (provider == 'azure') {
  scope: resourceGroup(empty(azureOpenAiName) || empty(azureOpenAiResourceGroup) ? group.name : azureOpenAiResourceGroup)
  params: {
    location: location
    tags: tags
    name: empty(azureOpenAiName) ? 'oai-${token}' : azureOpenAiName
    isNew: empty(azureOpenAiName)
    principalId: identity.outputs.principalId
    imageModel: azureImageModel
    textModel: azureTextModel
  }
}

module app 'app.bicep' = {
  scope: group
  params: {
    location: location
    tags: tags
    token: token
    identityId: identity.outputs.id
    identityClientId: identity.outputs.clientId
    storageSettings: storage.outputs.settings
    monitoringSettings: monitoring.outputs.settings
    providerSettings: provider == 'openai' ? keyVault!.outputs.settings : azureOpenAi!.outputs.settings
    settings: settings
    packageContainerUrl: storage.outputs.packageContainerUrl
    allowedOrigins: allowedOrigins
    instanceMemoryMB: instanceMemoryMB
    maximumInstanceCount: maximumInstanceCount
    perInstanceConcurrency: perInstanceConcurrency
    alwaysReadyInstances: alwaysReadyInstances
    siteUpdateStrategy: siteUpdateStrategy
    signInClientId: signInClientId
  }
}

module workbook 'workbook.bicep' = {
  scope: group
  params: {
    location: location
    tags: tags
    componentId: monitoring.outputs.componentId
  }
}

module alerts 'alerts.bicep' = if (!empty(alertEmail)) {
  scope: group
  params: {
    location: location
    tags: tags
    componentId: monitoring.outputs.componentId
    alertEmail: alertEmail
  }
}

module budget 'budget.bicep' = if (!empty(alertEmail)) {
  scope: group
  params: {
    alertEmail: alertEmail
    amount: monthlyBudget
    startDate: budgetStartOrNow
  }
}

module deployer 'deployer.bicep' = if (!empty(githubRepository)) {
  scope: group
  params: {
    location: location
    tags: tags
    appName: app.outputs.name
    planName: app.outputs.planName
    githubRepository: githubRepository
    githubEnvironment: githubEnvironment
  }
}

// azd writes each output into the environment: the hooks read them, and the next `azd provision` reads BUDGET_START.
output AZURE_RESOURCE_GROUP string = group.name
output AZURE_FUNCTION_APP string = app.outputs.name
output PAGE_URL string = app.outputs.url
output APP_PRINCIPAL_ID string = identity.outputs.principalId
// Without a budget no first day is kept: Azure would refuse it for a budget that is created months later. The day of a
// budget stays known when alertEmail is removed, because the budget stays, too.
output BUDGET_START string = empty(alertEmail) ? budgetStart : budgetStartOrNow
// The three variables that the GitHub environment needs for .github/workflows/deploy.yml.
output DEPLOYER_CLIENT_ID string = empty(githubRepository) ? '' : deployer!.outputs.clientId
output AZURE_TENANT_ID string = tenant().tenantId
output AZURE_SUBSCRIPTION_ID string = subscription().subscriptionId

// The identity of the workflow of one GitHub repository. It may deploy this app and read its plan, and nothing else. It has no secret:
// https://docs.github.com/actions/how-tos/secure-your-work/security-harden-deployments/oidc-in-azure
param location string
param tags object
param appName string
param planName string
param githubRepository string
param githubEnvironment string

// https://learn.microsoft.com/azure/role-based-access-control/built-in-roles/web-and-mobile
var roles = {
  websiteContributor: 'de139f84-1756-47ae-9be6-808fbbe84772'
}
// `az functionapp deployment source config-zip` reads the plan to learn that it is Flex Consumption.
var planRoles = {
  reader: 'acdd72a7-3385-48ef-bd42-f606fba81ae7'
}

resource site 'Microsoft.Web/sites@2024-11-01' existing = {
  name: appName
}

resource plan 'Microsoft.Web/serverfarms@2024-11-01' existing = {
  name: planName
}

resource identity 'Microsoft.ManagedIdentity/userAssignedIdentities@2024-11-30' = {
  name: 'id-deploy-${appName}'
  location: location
  tags: tags
}

resource trust 'Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials@2024-11-30' = {
  parent: identity
  name: 'github'
  properties: {
    issuer: 'https://token.actions.githubusercontent.com'
    subject: 'repo:${githubRepository}:environment:${githubEnvironment}'
    audiences: ['api://AzureADTokenExchange']
  }
}

resource assignments 'Microsoft.Authorization/roleAssignments@2022-04-01' = [for role in items(roles): {
  scope: site
  name: guid(site.id, identity.id, role.value)
  properties: {
    principalId: identity.properties.principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', role.value)
  }
}]

resource planAssignments 'Microsoft.Authorization/roleAssignments@2022-04-01' = [for role in items(planRoles): {
  scope: plan
  name: guid(plan.id, identity.id, role.value)
  properties: {
    principalId: identity.properties.principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', role.value)
  }
}]

output clientId string = identity.properties.clientId

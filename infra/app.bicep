// The function app on Flex Consumption: https://learn.microsoft.com/azure/azure-functions/flex-consumption-plan
param location string
param tags object
param token string
param identityId string
param identityClientId string
param storageSettings object
param monitoringSettings object
param providerSettings object
param settings object
param packageContainerUrl string
param allowedOrigins string[]
param instanceMemoryMB int
param maximumInstanceCount int
param perInstanceConcurrency int
param alwaysReadyInstances int
param siteUpdateStrategy string
param signInClientId string

resource plan 'Microsoft.Web/serverfarms@2024-11-01' = {
  name: 'plan-${token}'
  location: location
  tags: tags
  kind: 'functionapp'
  sku: {
    name: 'FC1'
    tier: 'FlexConsumption'
  }
  properties: { reserved: true }
}

var functionAppConfig = {
  runtime: {
    name: 'custom'
    version: '1.0'
  }
  deployment: {
    storage: {
      type: 'blobContainer'
      value: packageContainerUrl
      authentication: {
        type: 'UserAssignedIdentity'
        userAssignedIdentityResourceId: identityId
      }
    }
  }
  scaleAndConcurrency: {
    instanceMemoryMB: instanceMemoryMB
    maximumInstanceCount: maximumInstanceCount
    alwaysReady: alwaysReadyInstances == 0 ? [] : [{ name: 'http', instanceCount: alwaysReadyInstances }]
    triggers: {
      http: { perInstanceConcurrency: perInstanceConcurrency }
    }
  }
}

resource site 'Microsoft.Web/sites@2024-11-01' = {
  name: 'func-${token}'
  location: location
  // azd finds the app by this tag.
  tags: union(tags, { 'azd-service-name': 'app' })
  kind: 'functionapp,linux'
  identity: {
    type: 'UserAssigned'
    userAssignedIdentities: { '${identityId}': {} }
  }
  properties: {
    serverFarmId: plan.id
    httpsOnly: true
    keyVaultReferenceIdentity: identityId
    // Recreate is the platform's default, so that a region without the preview accepts the template.
    functionAppConfig: siteUpdateStrategy == 'Recreate' ? functionAppConfig : union(functionAppConfig, { siteUpdateStrategy: { type: siteUpdateStrategy } })
    siteConfig: {
      minTlsVersion: '1.2'
      ftpsState: 'Disabled'
      http20Enabled: true
      cors: {
        allowedOrigins: allowedOrigins
        // The cookie of a signed-in user is sent only when credentials are allowed.
        supportCredentials: !empty(signInClientId) && !empty(allowedOrigins)
      }
    }
  }
}

var signInSettings = {
  // The app's identity proves the registration, instead of a client secret.
  OVERRIDE_USE_MI_FIC_ASSERTION_CLIENTID: identityClientId
  ALLOWED_ORIGINS: join(allowedOrigins, ',')
}

// A write of the settings replaces all of them. They come last, when the roles and the secret exist.
resource appSettings 'Microsoft.Web/sites/config@2024-11-01' = {
  parent: site
  name: 'appsettings'
  properties: union(
    {
      AzureWebJobsStorage__credential: 'managedidentity'
      AzureWebJobsStorage__clientId: identityClientId
      AzureWebJobsDisableHomepage: 'true'
      APPLICATIONINSIGHTS_AUTHENTICATION_STRING: 'ClientId=${identityClientId};Authorization=AAD'
    },
    storageSettings,
    monitoringSettings,
    providerSettings,
    empty(signInClientId) ? {} : signInSettings,
    settings
  )
}

resource signIn 'Microsoft.Web/sites/config@2024-11-01' = if (!empty(signInClientId)) {
  parent: site
  name: 'authsettingsV2'
  properties: {
    platform: {
      enabled: true
      runtimeVersion: '~1'
    }
    globalValidation: {
      requireAuthentication: true
      unauthenticatedClientAction: 'RedirectToLoginPage'
      redirectToProvider: 'azureactivedirectory'
      excludedPaths: ['/api/health']
    }
    httpSettings: { requireHttps: true }
    identityProviders: {
      azureActiveDirectory: {
        enabled: true
        registration: {
          openIdIssuer: '${environment().authentication.loginEndpoint}${tenant().tenantId}/v2.0'
          clientId: signInClientId
          clientSecretSettingName: 'OVERRIDE_USE_MI_FIC_ASSERTION_CLIENTID'
        }
        validation: { allowedAudiences: [signInClientId, 'api://${signInClientId}'] }
      }
    }
    login: {
      // Without the token store `/.auth/me`, from which the page reads the user's name, answers nobody:
      // https://learn.microsoft.com/azure/app-service/configure-authentication-oauth-tokens
      tokenStore: { enabled: true }
    }
  }
  dependsOn: [appSettings]
}

// Deployments use tokens of Microsoft Entra ID, never a publish profile.
resource ftp 'Microsoft.Web/sites/basicPublishingCredentialsPolicies@2024-11-01' = {
  parent: site
  name: 'ftp'
  properties: { allow: false }
}

resource scm 'Microsoft.Web/sites/basicPublishingCredentialsPolicies@2024-11-01' = {
  parent: site
  name: 'scm'
  properties: { allow: false }
}

output name string = site.name
output planName string = plan.name
output url string = 'https://${site.properties.defaultHostName}'

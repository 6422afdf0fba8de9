// Mails to the operator. Each rule runs a query of ops/ and fires when it returns a row. docs/operating.md says what to do.
param location string
param tags object
param componentId string
param alertEmail string

// A rule that runs every 15 minutes costs a third of one that runs every 5 minutes.
var rules = [
  {
    name: 'failures'
    description: 'At least 5 % of the answers of a function are server errors.'
    severity: 2
    query: '${loadTextContent('../ops/failures.kql')}\n| where percent >= 5'
    every: 'PT15M'
    window: 'PT15M'
  }
  {
    name: 'provider-misconfigured'
    description: 'The provider refuses the key, the account or the model.'
    severity: 1
    query: loadTextContent('../ops/provider_misconfigured.kql')
    every: 'PT15M'
    window: 'PT15M'
  }
  {
    name: 'budget-reached'
    description: 'The budget of the day is spent, or refused an image.'
    severity: 3
    query: loadTextContent('../ops/budget_reached.kql')
    every: 'PT15M'
    window: 'PT15M'
  }
  {
    name: 'lost-images'
    description: 'An image was paid for and could not be kept.'
    severity: 1
    query: loadTextContent('../ops/lost_images.kql')
    every: 'PT15M'
    window: 'PT15M'
  }
  {
    name: 'spool'
    description: 'Images wait for their upload for more than 15 minutes.'
    severity: 2
    query: loadTextContent('../ops/spool.kql')
    every: 'PT15M'
    // Longer than the 15 minutes that the query looks back.
    window: 'PT1H'
  }
  {
    name: 'model-end'
    description: 'A model ends within 14 days, or is gone.'
    severity: 2
    query: loadTextContent('../ops/model_end.kql')
    // The handler looks at the models at its start and once a day.
    every: 'PT1H'
    window: 'P1D'
  }
  {
    name: 'poison-queue'
    description: 'A job failed five times.'
    severity: 2
    query: loadTextContent('../ops/poison_queue.kql')
    every: 'PT15M'
    window: 'PT15M'
  }
]

resource mail 'Microsoft.Insights/actionGroups@2023-01-01' = {
  name: 'operator'
  location: 'global'
  tags: tags
  properties: {
    enabled: true
    groupShortName: 'visionary'
    emailReceivers: [
      {
        name: 'operator'
        emailAddress: alertEmail
        useCommonAlertSchema: true
      }
    ]
  }
}

resource alerts 'Microsoft.Insights/scheduledQueryRules@2023-12-01' = [for rule in rules: {
  name: rule.name
  location: location
  tags: tags
  kind: 'LogAlert'
  properties: {
    displayName: 'Visionary: ${rule.name}'
    description: rule.description
    severity: rule.severity
    enabled: true
    scopes: [componentId]
    evaluationFrequency: rule.every
    windowSize: rule.window
    autoMitigate: true
    // Application Insights has no tables before the app's first request.
    skipQueryValidation: true
    criteria: {
      allOf: [
        {
          query: rule.query
          timeAggregation: 'Count'
          operator: 'GreaterThan'
          threshold: 0
          failingPeriods: {
            numberOfEvaluationPeriods: 1
            minFailingPeriodsToAlert: 1
          }
        }
      ]
    }
    actions: { actionGroups: [mail.id] }
  }
}]

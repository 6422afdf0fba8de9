// One workbook for the operator: requests, images, and what the alerts look at. The queries are those of ops/.
param location string
param tags object
param componentId string

var charts = [
  {
    title: 'Images, cost and tokens by day, model and outcome'
    query: '${loadTextContent('../ops/images.kql')}\n| summarize images = count(), usd = sum(cost_usd), input = sum(input_tokens), output = sum(output_tokens), p50_ms = percentile(duration_ms, 50) by day = bin(timestamp, 1d), model, outcome\n| order by day desc'
    visualization: 'table'
  }
  {
    title: 'Images by hour and outcome'
    query: '${loadTextContent('../ops/images.kql')}\n| summarize images = count() by bin(timestamp, 1h), outcome'
    visualization: 'timechart'
  }
  {
    title: 'Requests by function: number and duration in milliseconds'
    query: '${loadTextContent('../ops/requests.kql')}\n| summarize requests = count(), failures = countif(status >= 500), p50 = percentile(host_ms, 50), p95 = percentile(host_ms, 95), p95_handler = percentile(handler_ms, 95) by name\n| order by requests desc'
    visualization: 'table'
  }
  {
    title: 'Refusals and failures by code: quota, budget, provider'
    query: '${loadTextContent('../ops/requests.kql')}\n| where isnotempty(code)\n| summarize requests = count() by code, status\n| order by requests desc'
    visualization: 'table'
  }
  {
    title: 'Server errors'
    query: loadTextContent('../ops/failures.kql')
    visualization: 'table'
  }
  {
    title: 'The provider refuses the key, the account or the model'
    query: loadTextContent('../ops/provider_misconfigured.kql')
    visualization: 'table'
  }
  {
    title: 'The budget was reached'
    query: loadTextContent('../ops/budget_reached.kql')
    visualization: 'table'
  }
  {
    title: 'Lost images'
    query: loadTextContent('../ops/lost_images.kql')
    visualization: 'table'
  }
  {
    title: 'Images stored late'
    query: loadTextContent('../ops/spool.kql')
    visualization: 'table'
  }
  {
    title: 'Models that end'
    query: loadTextContent('../ops/model_end.kql')
    visualization: 'table'
  }
  {
    title: 'Jobs in the poison queue'
    query: loadTextContent('../ops/poison_queue.kql')
    visualization: 'table'
  }
]

var days = [1, 7, 30]
var timeRange = {
  type: 9
  name: 'parameters'
  content: {
    version: 'KqlParameterItem/1.0'
    style: 'pills'
    parameters: [
      {
        id: guid('TimeRange')
        version: 'KqlParameterItem/1.0'
        name: 'TimeRange'
        type: 4
        isRequired: true
        value: { durationMs: 604800000 }
        typeSettings: {
          selectableValues: map(days, day => { durationMs: day * 86400000 })
          allowCustom: true
        }
      }
    ]
  }
}
var queries = map(charts, chart => {
  type: 3
  name: chart.title
  content: {
    version: 'KqlItem/1.0'
    title: chart.title
    query: chart.query
    visualization: chart.visualization
    size: 0
    queryType: 0
    resourceType: 'microsoft.insights/components'
    timeContextFromParameter: 'TimeRange'
  }
})

resource workbook 'Microsoft.Insights/workbooks@2023-06-01' = {
  name: guid(resourceGroup().id, 'visionary')
  location: location
  tags: tags
  kind: 'shared'
  properties: {
    category: 'workbook'
    displayName: 'Visionary'
    sourceId: componentId
    serializedData: string({
      version: 'Notebook/1.0'
      items: concat([timeRange], queries)
      fallbackResourceIds: [componentId]
    })
  }
}

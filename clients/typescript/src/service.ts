import * as api from "./api.js";
import { Client, type ClientOptions } from "./request.js";

export interface DiscoverOptions {
  recursive?: boolean;
  includePatterns?: string[];
  excludePatterns?: string[];
}

/** The most used operations as methods that answer with the data alone. `Client` and `api` have all of them. */
export class ApiService {
  readonly #client: Client;

  constructor(base?: string, options?: ClientOptions) {
    this.#client = new Client(base, options);
  }

  async getConfig(): Promise<api.EngineConfig> {
    return (await this.#client.send(api.getConfig())).data;
  }

  async updateConfig(config: api.ConfigBody): Promise<api.EngineConfig> {
    return (await this.#client.send(api.updateConfig(config))).data;
  }

  async getModels(): Promise<api.ModelsData> {
    return (await this.#client.send(api.listModels())).data;
  }

  registerModels(models: Partial<api.RegisteredModel>[]): Promise<api.RegisteredModels> {
    // A model without a path is refused by the service, which says so better than a type.
    return this.#client.send(api.createModels({ models: models as api.NewModelBody[] }));
  }

  discoverModels(paths: string[], options: DiscoverOptions = {}): Promise<api.DiscoveredModels> {
    return this.#client.send(api.discoverModels({ paths, ...options }));
  }

  removeModel(id: string): Promise<api.RemovedModel> {
    return this.#client.send(api.deleteModel(id));
  }

  getHealth(): Promise<api.HealthData> {
    return this.#client.send(api.getHealth());
  }

  getStatus(): Promise<api.StatusData> {
    return this.#client.send(api.getStatus());
  }

  getMetrics(): Promise<api.MonitoringData> {
    return this.#client.send(api.getMetrics());
  }

  getMetricsHistory(hours = 24, resolution = "5m"): Promise<api.HistoryData> {
    return this.#client.send(api.getHistory({ hours, resolution }));
  }
}

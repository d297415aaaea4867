import { mount } from "svelte";
import "./app.css";
import Shell from "./app/App.svelte";

mount(Shell, { target: document.getElementById("app")! });

import { mount } from "svelte";
import "./app.css";
import Shell from "./shell/Shell.svelte";

mount(Shell, { target: document.getElementById("app")! });
